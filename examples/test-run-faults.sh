#!/usr/bin/env bash
# The Test Run while things break: ten nodes (examples/local_cluster.yaml) on this machine.
#
#   examples/test-run-faults.sh FOLDER [NODE]
#
# 1. uploads FOLDER while NODE (n4) is killed with -9, fetches everything back and compares;
# 2. kills every process with -9, starts again, compares;
# 3. waits for a snapshot interval, stops, deletes the data folders of n1, n2, n5 and n10 (not the
#    object store), starts again, compares.
#
# TAKO names the binary (target/release/tako). Works in a temporary folder; port 8080 and those of
# the configuration must be free. Exits non-zero at the first difference.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
tako=${TAKO:-$here/../target/release/tako}
folder=${1:?usage: test-run-faults.sh FOLDER [NODE]}
node=${2:-n4}
url=http://localhost:8080
var=$(mktemp -d)
launcher=

say() { printf '\n== %s\n' "$1"; }

start() {
    "$tako" cluster "$here/local_cluster.yaml" -p 8080 --var "$var" >>"$var/out.txt" 2>&1 &
    launcher=$!
    for _ in $(seq 300); do
        if curl -sf "$url/readyz" >/dev/null; then return; fi
        kill -0 "$launcher" 2>/dev/null || break
        sleep 0.1
    done
    echo "the cluster is not ready:" >&2
    tail -n 20 "$var/out.txt" >&2
    exit 1
}

stop() {
    kill -INT "$launcher"
    wait "$launcher" || true
    launcher=
}

cleanup() {
    if [ -n "$launcher" ]; then stop; fi
    if [ -z "${KEEP:-}" ]; then rm -rf "$var"; else echo "kept $var"; fi
}
trap cleanup EXIT

say "upload; $node is killed in the middle"
start
(sleep 1.5 && kill -9 "$(cat "$var/run/$node.pid")") &
killer=$!
"$here/test-run.sh" "$folder" "$url"
wait "$killer" || true

say 'every process is killed with -9 and started again'
kill -9 "$launcher" $(cat "$var"/run/*.pid) 2>/dev/null || true
wait "$launcher" 2>/dev/null || true
start
"$here/test-run.sh" --check-only "$folder" "$url"

say 'a snapshot interval later the data folders of n1, n2, n5 and n10 are deleted'
sleep 12
stop
for lost in n1 n2 n5 n10; do rm -rf "${var:?}/data/$lost"; done
start
"$here/test-run.sh" --check-only "$folder" "$url"

say 'passed'
