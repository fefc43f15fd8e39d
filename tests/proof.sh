#!/bin/sh
# The whole proof, as README.rst tells of it: hours, not minutes. Wants root, and installs what it needs.
# Arguments go to the proofs: sh tests/proof.sh --only "system call" --jobs 12
set -eu
cd "$(dirname "$0")/.."

sh tests/run.sh --co -q >/dev/null
exec .venv/bin/python -m tests.proof "$@"
