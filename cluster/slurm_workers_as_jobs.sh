#!/usr/bin/env bash
# A small job that starts workers as jobs of their own, by a profile:
#   sbatch slurm_workers_as_jobs.sh uncal/ --through 3 --output_dir=products --cluster slurm
# It must run longer than they do; nodes must be allowed to submit jobs.
#SBATCH --job-name=jwstdask-client
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=jwstdask-%j.log

# module load ... or: source env/bin/activate
exec jwstdask run "$@"
