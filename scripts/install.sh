#!/usr/bin/env bash
# Make or reuse the virtual environment .venv and install volseg into it, at the tested versions.
# Usage: bash scripts/install.sh [EXTRA]      EXTRA: an optional extra of pyproject.toml, for instance test
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable ".${1:+[$1]}"
