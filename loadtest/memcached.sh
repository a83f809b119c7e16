#!/usr/bin/env bash
# Tako's memcached port beside memcached itself: one node, consistency one, the same load on each in
# turn (compare.sh has more servers). Ports and folders are the system's; all ends with this script.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --release --package tako
cargo build --quiet --release --package tako-loadtest --example compare
command -v memcached > /dev/null || { echo 'memcached is not installed' >&2; exit 1; }

folder=$(mktemp -d)
pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done; wait; rm -rf "$folder"' EXIT
read -r http rpc port peer < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*(one.getsockname()[1] for one in held))')

start() { # durability
    cat > "$folder/$1.yaml" << END
active_deployment: d
durability: $1
deployments: {d: {hash: {buckets_per_key: 1}, buckets: {b1: {n1: {host: 127.0.0.1, http_port: $http, memcached_port: $port, rpc_port: $rpc}}}}}
END
    target/release/tako node --id n1 --config "$folder/$1.yaml" --var "$folder/$1" > "$folder/$1.log" 2>&1 &
    pids+=($!)
    until curl -sf "http://127.0.0.1:$http/readyz" > /dev/null; do sleep 0.2; done
}
stop() { kill "${pids[-1]}"; wait "${pids[-1]}" || true; unset 'pids[-1]'; }

memcached -l 127.0.0.1 -p "$peer" -U 0 -t 2 -m 256 ${MEMCACHED_USER:+-u "$MEMCACHED_USER"} &
pids+=($!)
sleep 1
load() { echo "== $*"; target/release/examples/compare "$@" "127.0.0.1:$port" "127.0.0.1:$peer"; }
start os
load get
load get --depth 16
load set
stop
start fsync
load set
stop
