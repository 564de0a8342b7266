#!/usr/bin/env bash
# A whole program as one job, on the cores and memory of one node:
#   qsub -v WORDS="uncal/ --through 3 --output_dir=products" pbs_one_job.sh
# Killed at its time limit? Submit it again, and it goes on.
#PBS -N jwstdask
#PBS -l select=1:ncpus=16:mem=64gb
#PBS -l walltime=08:00:00
#PBS -j oe

cd "${PBS_O_WORKDIR:-.}" || exit
# module load ... or: source env/bin/activate
# shellcheck disable=SC2086  # several words
exec jwstdask run $WORDS --workers "${NCPUS:-auto}"
