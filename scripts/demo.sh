#!/usr/bin/env bash
# DrQ, SGQN and SMG on walker stand, small enough for two CPU cores: bash scripts/demo.sh [key=value]...
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<TEXT
usage: bash scripts/demo.sh [key=value]...

Trains DrQ, SGQN and SMG with the same budget, adds a random policy, prints one table and draws one picture;
installs everything on first use. Start it again after any interruption: finished runs are kept.

  bash scripts/demo.sh
  bash scripts/demo.sh seeds=[0,1]
  bash scripts/demo.sh preset=smoke folder=small         # in minutes; nothing is learnt
TEXT
}

case ${1:-} in -h | --help) usage; exit 0 ;; esac
for argument; do
  if [[ $argument != *=* ]]; then
    usage >&2
    exit 2
  fi
done
bash "$root/scripts/setup.sh"
"$root/.venv/bin/smg" study run laptop "$@"
PYTHONPATH="$root" exec "$root/.venv/bin/python" -m benchmarks.demo "$@"
