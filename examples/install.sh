#!/bin/sh
# Makes .venv in the project's folder and installs taskd into it, unless that was done since setup.cfg changed.
# Argument: what to install; '.' is taskd, '.[test]' also what its tests need.
set -eu
cd "$(dirname "$0")/.."
what=${1:-.}
stamp=".venv/installed$(printf %s "$what" | tr -dc 'a-z' | sed 's/^./-&/')"

if ! [ -x .venv/bin/python ]; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "taskd needs Python 3.11 or newer; this is $(python3 --version)" >&2
        exit 1
    }
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
            apt-get update -qq >/dev/null
            DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv >/dev/null
        else
            echo "python3 has no venv; install the package python3-venv first" >&2
            exit 1
        fi
    fi
    python3 -m venv .venv
fi
if ! [ "$stamp" -nt setup.cfg ]; then
    echo "installing taskd into .venv"
    .venv/bin/python -m pip install --disable-pip-version-check -qq --editable "$what"
    touch "$stamp"
fi
