#!/usr/bin/env bash
# Train and evaluate SMG: bash scripts/run_smg.sh DOMAIN TASK [arguments of smg train]
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_agent.sh" smg "$@"
