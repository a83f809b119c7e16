#!/usr/bin/env bash
# Tako beside memcached, redis and etcd: one node of each on this machine, the same load on each in turn,
# in rounds. Who is not installed is passed over, and that is said. Prints a table for each load: rates and
# latencies are medians of the rounds, a ratio above 1 means that Tako is faster (lowest and highest round in
# brackets). Ports and folders are the system's; all ends with this script.
#
#   loadtest/compare.sh                 ROUNDS=N (3), SECONDS_EACH=N (4): of each server in each round
#
# TAKO=PROGRAM and COMPARE=PROGRAM run those (default: built here). Needs curl and python3.
set -euo pipefail
cd "$(dirname "$0")/.."
tako=${TAKO:-target/release/tako} compare=${COMPARE:-target/release/examples/compare}
[[ -n ${TAKO:-} ]] || cargo build --quiet --release --package tako
[[ -n ${COMPARE:-} ]] || cargo build --quiet --release --package tako-loadtest --example compare

folder=$(mktemp -d)
pids=()
stop() {
    ((${#pids[@]} == 0)) || kill "${pids[@]}" 2> /dev/null || true
    wait
    pids=()
}
trap 'stop; rm -rf "$folder"' EXIT
read -r http rpc cached memcached redis etcd etcd_peer < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(7)]
print(*(one.getsockname()[1] for one in held))')

await() { # NAME PORT
    for _ in $(seq 300); do
        python3 -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)' "$2" \
            2> /dev/null && return
        sleep 0.1
    done
    echo "compare: $1 did not start:" >&2
    tail -5 "$folder/$1.log" >&2
    exit 1
}
start() { # NAME PORT COMMAND…
    local name=$1 port=$2
    shift 2
    "$@" > "$folder/$name.log" 2>&1 &
    pids+=($!)
    await "$name" "$port"
}
start_tako() { # DURABILITY
    cat > "$folder/$1.yaml" << END
active_deployment: d
durability: $1
deployments: {d: {hash: {buckets_per_key: 1}, buckets: {b1: {n1: {host: 127.0.0.1, http_port: $http, memcached_port: $cached, rpc_port: $rpc}}}}}
END
    start tako "$http" "$tako" node --id n1 --config "$folder/$1.yaml" --var "$folder/$1"
    until curl -sf "http://127.0.0.1:$http/readyz" > /dev/null; do sleep 0.1; done
    await tako "$cached"
    servers=("Tako=memcached://127.0.0.1:$cached" "Tako, HTTP=http://127.0.0.1:$http")
}
there() {
    command -v "$1" > /dev/null && return
    echo "compare: NO $1 ON THIS MACHINE: PASSED OVER" >&2
    return 1
}
start_memcached() {
    there memcached || return 0
    local user=()
    # It refuses to run as root without a user.
    [[ $(id -u) != 0 ]] || user=(-u "${MEMCACHED_USER:-nobody}")
    start memcached "$memcached" memcached -l 127.0.0.1 -p "$memcached" -U 0 -t 2 -m 256 "${user[@]}"
    servers+=("memcached=memcached://127.0.0.1:$memcached")
}
start_redis() { # APPENDFSYNC, or nothing for no file at all
    there redis-server || return 0
    mkdir -p "$folder/redis"
    local append=(--appendonly no) name=redis
    [[ -z ${1:-} ]] || append=(--appendonly yes --appendfsync "$1") name="redis, appendfsync $1"
    start redis "$redis" redis-server --bind 127.0.0.1 --port "$redis" --dir "$folder/redis" --save '' "${append[@]}"
    servers+=("$name=redis://127.0.0.1:$redis")
}
start_etcd() {
    there etcd || return 0
    start etcd "$etcd" etcd --data-dir "$folder/etcd" --listen-client-urls "http://127.0.0.1:$etcd" \
        --advertise-client-urls "http://127.0.0.1:$etcd" --listen-peer-urls "http://127.0.0.1:$etcd_peer" \
        --initial-advertise-peer-urls "http://127.0.0.1:$etcd_peer" \
        --initial-cluster "default=http://127.0.0.1:$etcd_peer"
    until curl -sf "http://127.0.0.1:$etcd/health" > /dev/null; do sleep 0.1; done
    servers+=("etcd, JSON gateway=etcd://127.0.0.1:$etcd")
}
load() { # TITLE WHAT OPTION…
    printf '\n%s\n\n' "$1"
    shift
    "$compare" "$@" --rounds "${ROUNDS:-3}" --seconds "${SECONDS_EACH:-4}" "${servers[@]}"
}

echo "$(nproc) processors; 1 KiB values, 10,000 keys, 64 connections" | sed 's/^/== /'
start_tako os
start_memcached
start_redis
load 'set, nothing synced (Tako: `durability: os`)' set
start_etcd
load 'get' get
load 'get, 16 in a pipeline' get --depth 16
stop
start_tako fsync
start_redis always
rm -rf "$folder/etcd"
start_etcd
load 'set, on the disk before the answer' set
