#!/bin/sh
# Copy a disk image from the shell, with curl, nc and jq, and see how far it is: shell.sh IMAGE TARGET
#
# The socket speaks JSON-RPC over HTTP (curl) and as it is (nc, of the package netcat-openbsd): the same methods.
set -eu
[ $# = 2 ] || { echo "usage: shell.sh IMAGE TARGET" >&2; exit 2; }
socket=${TASKD_SOCKET:-/run/taskd/taskd.sock}

# A call as JSON: request METHOD PARAMS
request() { jq -nc --arg method "$1" --argjson params "$2" '{jsonrpc: "2.0", id: 1, method: $method, params: $params}'; }

# The result in a reply; an error is said, and is exit status 1. So is no reply at all, which jq would end well on.
result() {
    reply=$(cat)
    [ -n "$reply" ] || { echo "no daemon answers on $socket" >&2; return 1; }
    printf '%s\n' "$reply" |
        jq -c 'if .error then "\(.error.message): \(.error.data | join(", "))\n" | halt_error(1) else .result end'
}

# Start. With a request_id of its own it could be asked twice, and would still be one task.
params=$(jq -nc --arg source "$(realpath "$1")" --arg target "$(realpath -m "$2")" --arg request "$(cat /proc/sys/kernel/random/uuid)" \
    '{operation: "copy", params: {source: $source, target: $target}, label: "from the shell", request_id: $request}')
task=$(request Task.start "$params" | curl -sS --unix-socket "$socket" http://taskd/jsonrpc -d @- | result)

# Wait for a change, show it, wait for the next, until it has ended.
while [ "$(echo "$task" | jq .finished_at)" = null ]; do
    params=$(echo "$task" | jq -c '{id, after_revision: .revision, timeout_s: 60}')
    task=$(request Task.wait "$params" | nc -N -U "$socket" | result)
    echo "$task" | jq -r '"\(.state) \(.progress.fraction * 100 | floor) %"'
done

# What became of it: an exit status, and a sentence.
echo "$task" | jq -er 'if .state == "completed" then "\(.progress.done) bytes" else "\(.error.message // .state)\n" | halt_error(1) end'
