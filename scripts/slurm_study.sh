#!/usr/bin/env bash
# Example: a study as a Slurm array. Each element does every 35th run of the study, one after another; a
# preempted or timed-out element saves, asks to be queued again and resumes.
#
#   mkdir -p logs && sbatch --array=0-34 scripts/slurm_study.sh smg_video_hard 35
#
#SBATCH --job-name=study
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/%x-%A_%a.log
set -uo pipefail
study=$1
shards=$2
shift 2

# Slurm runs a copy of this script, so the checkout is where sbatch was called.
"${SLURM_SUBMIT_DIR:-.}/.venv/bin/smg" study run "$study" --shard "$SLURM_ARRAY_TASK_ID/$shards" "$@" &
run=$!
trap 'signalled=1; kill -USR1 $run' USR1
trap 'signalled=1; kill -TERM $run' TERM
# A signal ends the wait before the study has ended.
while signalled=0; wait $run; status=$?; [ $signalled = 1 ]; do :; done
if [ $status -eq 75 ]; then scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"; fi
exit $status
