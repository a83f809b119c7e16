#!/usr/bin/env bash
# The load under which kumofs 0.4.13 was measured on two cores (three servers, three copies, one gateway,
# 16 connections one request each, values of 1 KiB and of 100 bytes): on three nodes of one bucket
# through a proxy's memcached port, and at a node's own. Not fsynced, as kumofs was not. Ends all it
# started; ports and folders are the system's.
#
#   loadtest/kumofs.sh [quorum|one|all]      (default: both quorum and one)
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --release --package tako
cargo build --quiet --release --package tako-loadtest --example compare
tako=${TAKO:-target/release/tako}

folder=$(mktemp -d)
pids=()
stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done
    wait
    pids=()
}
trap 'stop; rm -rf "$folder"' EXIT
read -r -a ports < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(11)]
print(*(one.getsockname()[1] for one in held))')

for consistency in ${1:-quorum one}; do
    {
        printf 'active_deployment: d\ndurability: os\ndeployments:\n  d:\n    consistency: %s\n' "$consistency"
        printf '    hash: {buckets_per_key: 1}\n    buckets:\n      b1:\n'
        for n in 0 1 2; do
            printf '        n%s: {host: 127.0.0.1, http_port: %s, memcached_port: %s, rpc_port: %s}\n' \
                $((n + 1)) "${ports[3 * n]}" "${ports[3 * n + 1]}" "${ports[3 * n + 2]}"
        done
    } > "$folder/$consistency.yaml"
    var=$folder/$consistency
    for n in 1 2 3; do
        "$tako" node --id "n$n" --config "$folder/$consistency.yaml" --var "$var" \
            --store "file://$var/store" > "$folder/n$n.log" 2>&1 &
        pids+=($!)
    done
    "$tako" proxy --config "$folder/$consistency.yaml" --var "$var" --port "${ports[9]}" \
        --memcached-port "${ports[10]}" > "$folder/p1.log" 2>&1 &
    pids+=($!)
    for port in "${ports[0]}" "${ports[9]}"; do
        for _ in $(seq 150); do
            curl -sf "http://127.0.0.1:$port/readyz" > /dev/null && break
            sleep 0.2
        done
    done
    for bytes in 1024 100; do
        for what in set get; do
            echo "== $consistency, $what, $bytes bytes: through the proxy, at a node"
            target/release/examples/compare "$what" --connections 16 --value-bytes "$bytes" \
                --rounds "${ROUNDS:-3}" "127.0.0.1:${ports[10]}" "127.0.0.1:${ports[1]}"
        done
    done
    stop
done
