#!/usr/bin/env bash
# Install what the tests need and run all of them: format, lint, types, unit suite, slow suite.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/install.sh test
export OMP_NUM_THREADS=1
bin=.venv/bin
$bin/ruff format --check .
$bin/ruff check .
$bin/mypy
$bin/python -m pytest -n 2 -m "not slow" --cov --cov-report=term:skip-covered --cov-fail-under=95 "$@"
$bin/python -m pytest -n 2 -m slow "$@"
