#!/usr/bin/env bash
# Everything from a fresh clone to a first prediction: environment, installation, demo.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/install.sh
exec .venv/bin/volseg demo --output-dir demo_run "$@"
