#!/usr/bin/env bash
# Find out in nine minutes whether and how fast this works on a GPU: bash scripts/gpu_check.sh FOLDER [--rehearse]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case ${1:-} in
  "" | -h | --help)
    echo "usage: bash scripts/gpu_check.sh FOLDER [--rehearse] [--minutes N]"
    echo "Checks, tests, trains and measures on this machine's GPU; FOLDER/report.md says what was found."
    [ -n "${1:-}" ] && exit 0 || exit 2
    ;;
esac
# On a machine whose packages were brought along, PYTHON names the interpreter that has them.
if [ -z "${PYTHON:-}" ]; then
  bash "$root/scripts/setup.sh" tests
  PYTHON=$root/.venv/bin/python
fi
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$PYTHON" -m benchmarks.gpu_check "$@"
