#!/bin/sh
# UCloud's counting task, with curl and jq: a service tells a user how far its work is.
#
# As UCloud's documentation has it, but for the Unix socket: there the kernel says who calls, and no token is needed.
# Behind a proxy (README.rst, "Who may do what") it is: -H "Authorization: Bearer $token", and the proxy's host.
set -eu
socket=${TASKD_SOCKET:-/run/taskd/taskd.sock}
owner=${1:-$(id -un)}

cloud() { curl -sS --fail-with-body --unix-socket "$socket" "$@"; }

id=$(cloud -X PUT http://taskd/api/tasks -d '{
    "title": "We are counting to 3",
    "owner": "'"$owner"'",
    "initialStatus": "ready"
}' | jq -r .jobId)

for count in 1 2 3; do
    cloud http://taskd/api/tasks/postStatus -o /dev/null -d '{
        "update": {
            "jobId": "'"$id"'",
            "newTitle": null,
            "speeds": [{"title": "Counting", "speed": 1.0, "unit": "/s", "asText": "1 number/s"}],
            "progress": {"title": "Numbers", "maximum": 3, "current": '$count'},
            "complete": false,
            "messageToAppend": "Count is now '$count'\n",
            "newStatus": "counting"
        }
    }'
    cloud "http://taskd/api/tasks/retrieve?id=$id" | jq -r '"\(.title): \(.status), complete: \(.complete)"'
done

cloud http://taskd/api/tasks/markAsComplete -o /dev/null -d '{"id": "'"$id"'"}'
cloud "http://taskd/api/tasks/retrieve?id=$id" | jq -r '"\(.title): \(.status), complete: \(.complete)"'
