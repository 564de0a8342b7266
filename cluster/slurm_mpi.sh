#!/usr/bin/env bash
# One job on several nodes, where the site prefers MPI to many jobs: ranks are scheduler, program and workers.
#   sbatch slurm_mpi.sh uncal/ --through 3 --output_dir=products
#SBATCH --job-name=jwstdask
#SBATCH --ntasks=64
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=4G
#SBATCH --time=04:00:00
#SBATCH --output=jwstdask-%j.log

# module load openmpi; source env/bin/activate
exec mpirun jwstdask run "$@" --cluster mpi
