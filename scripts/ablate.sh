#!/usr/bin/env bash
# An agent without each of its loss terms: bash scripts/ablate.sh AGENT DOMAIN TASK [arguments of smg study run]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<TEXT
usage: bash scripts/ablate.sh smg|sgqn DOMAIN TASK [arguments of 'smg study run']

Runs the agent's ablation study (smg_ablation or sgqn_table2) on one task; installs everything on first use.

  bash scripts/ablate.sh smg walker walk
  bash scripts/ablate.sh sgqn walker stand preset=laptop seeds=[0]
TEXT
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  smg) study=smg_ablation ;;
  sgqn) study=sgqn_table2 ;;
  *) usage >&2; exit 2 ;;
esac
if [ $# -lt 3 ] || [[ $2 == -* || $2 == *=* || $3 == -* || $3 == *=* ]]; then
  usage >&2
  exit 2
fi
task=$2_$3
shift 3
bash "$root/scripts/setup.sh"
exec "$root/.venv/bin/smg" study run "$study" "tasks=[$task]" "$@"
