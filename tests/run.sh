#!/bin/sh
# Makes .venv, installs what the tests need (Debian packages too where it is root), and runs them all.
# Arguments go to pytest: sh tests/run.sh -k sweep
set -eu
cd "$(dirname "$0")/.."

# command:package
tools="mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs nc:netcat-openbsd socat:socat jq:jq curl:curl node:nodejs npm:npm
       losetup:mount tmux:tmux setpriv:util-linux nginx:nginx-light systemd-analyze:systemd systemd-nspawn:systemd-container
       pgrep:procps zsh:zsh fish:fish faketime:faketime chattr:e2fsprogs qemu-storage-daemon:qemu-system-common
       qemu-img:qemu-utils rsync:rsync strace:strace"
missing=""
for pair in $tools; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing$missing"
        apt-get update -qq >/dev/null
        # shellcheck disable=SC2086  # a list of packages
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
    else
        echo "not here, so their tests are skipped:$missing"
    fi
fi

sh examples/install.sh '.[test]'

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# Three at a time, each file by one of them: half of the time is waited for disks and daemons.
.venv/bin/pytest -q -rs -n 3 --dist loadfile --durations=15 "$@"
