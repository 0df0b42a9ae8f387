#!/usr/bin/env bash
# Lint, format, types and tests; arguments go to pytest: bash scripts/test.sh [-k NAME ...]
# Tests run in as many processes as there are cores, with a thread each; -n 0 keeps them in one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh tests
bin=.venv/bin
$bin/ruff check .
$bin/ruff format --check .
$bin/pyright
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
$bin/pytest -n auto --dist loadfile "$@"
