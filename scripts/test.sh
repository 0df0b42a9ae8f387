#!/usr/bin/env bash
# Lint, format, types and tests; arguments go to pytest: bash scripts/test.sh [-k NAME ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh tests
bin=.venv/bin
$bin/ruff check .
$bin/ruff format --check .
$bin/pyright
$bin/pytest "$@"
