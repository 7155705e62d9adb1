#!/bin/bash
# A job array of Slurm: each task does its part of the plan. sbatch --array=1-16 examples/slurm.sh examples/bit.toml
#SBATCH --job-name=bit-convert
#SBATCH --cpus-per-task=4
#SBATCH --mem=12G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --output=bit-convert-%A-%a.log
set -euo pipefail
plan=${1:?which plan?}
export BIT_CONVERT_CACHE=${BIT_CONVERT_CACHE:-${SCRATCH:-$HOME}/bit-convert}
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-4}
# A task that was stopped or requeued goes on where it was.
srun bit-convert --plan "$plan" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --output "$SCRATCH/models/{layout}" --push --discard
