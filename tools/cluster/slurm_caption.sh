#!/bin/bash
# A Slurm array of shards, each of which goes on where it was stopped when it is queued again:
#   sbatch --array=0-63 tools/cluster/slurm_caption.sh MODEL "PROMPT" LIST OUT_FOLDER 64
# One shard again: the same with --array=17. When all are done:
#   mobilevlm batch --merge captions.jsonl --list LIST OUT_FOLDER/*.jsonl
#SBATCH --job-name=mobilevlm
#SBATCH --cpus-per-task=4
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
#SBATCH --time=04:00:00
set -u
if [ $# -ne 5 ]; then
    echo "usage: sbatch --array=0-63 $0 MODEL PROMPT LIST OUT_FOLDER SHARDS" >&2
    exit 2
fi
model=$1 prompt=$2 list=$3 out=$4 shards=$5
# SHARDS is said, not taken from SLURM_ARRAY_TASK_COUNT: that is 1 when one task runs again.
shard=${SLURM_ARRAY_TASK_ID:?"no array task: use sbatch --array"}
mkdir -p "$out" || exit 8
# Slurm tells the shell a minute before the time is up: the record at hand is finished, and the task goes back into the queue.
trap 'kill -TERM "$worker"; wait "$worker"' TERM
"${MOBILEVLM:-mobilevlm}" batch -m "$model" -p "$prompt" "@$list" -o "$out/$shard.jsonl" --resume \
    --shard "$shard/$shards" -t "${SLURM_CPUS_PER_TASK:-1}" &
worker=$!
wait "$worker"
status=$?
if [ "$status" = 143 ] && [ -n "${SLURM_JOB_ID:-}" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
