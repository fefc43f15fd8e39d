#!/bin/sh
# taskd in a minute: a daemon of your own, a real disk image, a copy, a cancel, a kill -9, and what is left.
#
# Makes .venv and installs taskd into it, then works in a private folder below $TMPDIR, and ends what it started.
# Exit status 0 means that everything that is told here was seen.
set -eu
cd "$(dirname "$0")/.."

sh examples/install.sh .
PATH="$PWD/.venv/bin:$PATH:/usr/sbin:/sbin"
if ! command -v mke2fs >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends e2fsprogs >/dev/null
    else
        echo "mke2fs is missing; install the package e2fsprogs first" >&2
        exit 1
    fi
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/taskd-quickstart.XXXXXX")
export TASKD_SOCKET="$work/taskd.sock"
daemon=""

cleanup() {
    if [ -n "$daemon" ]; then
        kill -TERM "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

say() { printf '\n== %s\n' "$*"; }

fail() {
    echo "quickstart: $*" >&2
    echo "--- the daemon's log:" >&2
    cat "$work/log" >&2
    exit 1
}

start_daemon() {
    taskd --state "$work/state" >>"$work/log" 2>&1 &
    daemon=$!
    tries=0
    until taskctl ls >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || fail "the daemon does not answer"
        kill -0 "$daemon" 2>/dev/null || fail "the daemon did not start"
        sleep 0.1
    done
}

# What a task's record says of one field: field ID NAME
field() { taskctl show --json "$1" | python -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$2"; }

# Waits until the task is well in the middle of its copy: half_way ID
half_way() {
    tries=0
    until python -c 'import sys; sys.exit(not 0.2 < float(sys.argv[1]) < 0.9)' \
        "$(taskctl show --json "$1" | python -c 'import json, sys; print(json.load(sys.stdin)["progress"]["fraction"])')"; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || fail "task $1 does not get half way"
        sleep 0.1
    done
}

# Nothing but the images that we know of is left in the folder: only NAME...
only() {
    printf '%s\n' "$@" | sort >"$work/expected"
    ls -A | sort >"$work/found"
    cmp -s "$work/expected" "$work/found" || fail "expected only $*, found: $(tr '\n' ' ' <"$work/found")"
}

say "A disk image of 64 MiB with an ext4 filesystem and real files in it"
mkdir -p "$work/images" "$work/files"
cp LICENSE README.rst setup.cfg "$work/files/"
cd "$work/images"
dd if=/dev/urandom of="$work/files/random" bs=1M count=32 status=none
mke2fs -q -t ext4 -d "$work/files" disk.img 64M >/dev/null
ls -lsh

say "A daemon on a socket and a state folder of its own"
start_daemon
echo "taskd runs as process $daemon"

say "1. Copy the image, with live progress"
taskctl copy disk.img first.img --rate-limit 16M --label first
cmp disk.img first.img || fail "the copy differs"
e2fsck -fn first.img >/dev/null 2>&1 || fail "the copy is no clean filesystem"
only disk.img first.img
echo "seen: the copy is the same byte for byte, and e2fsck finds it clean"

say "2. Copy it again, slowly, and cancel half way"
second=$(taskctl copy --no-wait --rate-limit 8M --label second disk.img second.img)
half_way "$second"
taskctl ls
taskctl cancel "$second"
taskctl wait "$second" && fail "the cancelled copy says that it is done" || status=$?
[ "$status" = 3 ] || fail "expected exit status 3 for a cancelled task, got $status"
only disk.img first.img
echo "seen: the task is $(field "$second" state), and nothing of the second copy is left"

say "3. Copy it a third time, slowly, and kill the daemon with SIGKILL half way"
third=$(taskctl copy --no-wait --rate-limit 8M --label third disk.img third.img)
half_way "$third"
kill -KILL "$daemon"
wait "$daemon" 2>/dev/null || true
daemon=""
[ ! -e third.img ] || fail "half a copy can be seen under the target's name"
echo "seen: the daemon is dead, and there is no half a copy under the target's name"
start_daemon
echo "taskd runs again, as process $daemon"
taskctl wait "$third" || fail "the third copy did not end whole"
cmp disk.img third.img || fail "the third copy differs"
[ "$(field "$third" attempt)" = 2 ] || fail "the third copy was not interrupted"
only disk.img first.img third.img
echo "seen: the interrupted copy was undone, done again, and is whole"

say "What the daemon says of each task"
taskctl ls
[ "$(field "$second" state)" = cancelled ] || fail "the daemon forgot how the second copy ended"
[ "$(field "$third" state)" = completed ] || fail "the daemon does not know how the third copy ended"

say "All of it was seen. The daemon is stopped, and $work is removed."
