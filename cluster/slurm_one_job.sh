#!/usr/bin/env bash
# A whole program as one job, on the cores and memory of one node:
#   sbatch slurm_one_job.sh uncal/ --through 3 --output_dir=products
# Two minutes before the time limit it ends in order; submit it again, and it goes on.
#SBATCH --job-name=jwstdask
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=jwstdask-%j.log

# module load ... or: source env/bin/activate
exec jwstdask run "$@" --workers auto
