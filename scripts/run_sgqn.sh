#!/usr/bin/env bash
# Train and evaluate SGQN: bash scripts/run_sgqn.sh DOMAIN TASK [arguments of smg train]
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_agent.sh" sgqn "$@"
