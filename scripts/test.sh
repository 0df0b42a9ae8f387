#!/usr/bin/env bash
# Lint, format, types and tests; arguments go to pytest: bash scripts/test.sh [--fast] [-k NAME ...]
# --fast leaves out what takes long: killed and resumed studies, browsers, C++ compilers, packaging.
# Tests run in as many processes as there are cores, with a thread each; -n 0 keeps them in one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
lane=()
if [ "${1:-}" = --fast ]; then
  shift
  lane=(-m "not slow")
fi
bash scripts/setup.sh tests
bin=.venv/bin
$bin/ruff check .
$bin/ruff format --check .
$bin/pyright
# The last is Mesa's renderer, where 0 means none besides the caller's.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 LP_NUM_THREADS=0
# A process that a hanging test ended is replaced once; pytest-xdist would try the same test again and again.
$bin/pytest -n auto --dist loadfile --max-worker-restart 1 "${lane[@]}" "$@"
