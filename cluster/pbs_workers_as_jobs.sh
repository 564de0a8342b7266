#!/usr/bin/env bash
# A small job that starts workers as jobs of their own, by a profile:
#   qsub -v WORDS="uncal/ --through 3 --output_dir=products --cluster pbs" pbs_workers_as_jobs.sh
# It must run longer than they do; nodes must be allowed to submit jobs.
#PBS -N jwstdask-client
#PBS -l select=1:ncpus=1:mem=4gb
#PBS -l walltime=24:00:00
#PBS -j oe

cd "${PBS_O_WORKDIR:-.}" || exit
# module load ... or: source env/bin/activate
# shellcheck disable=SC2086  # several words
exec jwstdask run $WORDS
