#!/usr/bin/env bash
# Shared by run_smg.sh and run_sgqn.sh: bash scripts/run_agent.sh AGENT DOMAIN TASK [arguments of smg train]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
agent=$1
shift

usage() {
  cat <<TEXT
usage: bash scripts/run_$agent.sh DOMAIN TASK [arguments of 'smg train']

Trains and evaluates ${agent^^}; installs everything on first use.

  bash scripts/run_$agent.sh walker walk
  bash scripts/run_$agent.sh ball_in_cup catch --preset laptop seed=1
TEXT
}

case ${1:-} in -h | --help) usage; exit 0 ;; esac
if [ $# -lt 2 ] || [[ $1 == -* || $1 == *=* || $2 == -* || $2 == *=* ]]; then
  usage >&2
  exit 2
fi
task=$1_$2
shift 2
bash "$root/scripts/setup.sh"
exec "$root/.venv/bin/smg" train --agent "$agent" --task "$task" "$@"
