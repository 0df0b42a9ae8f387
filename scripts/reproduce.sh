#!/usr/bin/env bash
# A paper's whole table by one command: bash scripts/reproduce.sh STUDY [arguments of smg study run]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<TEXT
usage: bash scripts/reproduce.sh STUDY [arguments of 'smg study run']

Does the runs of configs/studies/STUDY.yaml that are not done yet, prints the table beside the published
one and writes it and a report beside the runs; installs everything on first use. Studies:
$(cd "$root/configs/studies" && for file in *.yaml; do echo "  ${file%.yaml}"; done)

  bash scripts/reproduce.sh smg_video_hard --dry-run
  bash scripts/reproduce.sh laptop_video_hard --jobs 2       # without a GPU
  bash scripts/reproduce.sh smg_video_hard preset=smoke tasks=[walker_walk] agents=[drq,smg] folder=small
TEXT
}

case ${1:-} in -h | --help) usage; exit 0 ;; esac
if [ $# -lt 1 ] || [[ $1 == -* || $1 == *=* ]]; then
  usage >&2
  exit 2
fi
bash "$root/scripts/setup.sh"
exec "$root/.venv/bin/smg" study run "$@"
