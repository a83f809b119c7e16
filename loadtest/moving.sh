#!/usr/bin/env bash
# How long moving takes, whatever lies in the store: the figures "Moving to other nodes" of docs/benchmarks.md.
#
#   loadtest/moving.sh MEGABYTES [VALUE_KIB]      (e.g. 100 64, then 10240 1024)
#
# A cluster of eight processes on this machine with a folder as the store: three nodes get
# MEGABYTES, then a second bucket of three new nodes under load at a fixed rate, then one node is
# replaced three times by an empty one. Prints one line per figure.
#
# MIRRORS=1: one node and another bucket of one, for a machine with few cores: latencies mean little
# where the processes wait for one.
#
# TAKO=PROGRAM runs that `tako` (default: target/release/tako); RATE=N/s the load (default
# 1000/s, 0 for none) on KEYS=N values of 1 KiB (default 100000); PORT=N the first of the 20 ports
# (default 9700). The folder it works in is removed at the end and needs about three times MEGABYTES
# of disk: TMPDIR says where. OTHERS=FOLDER is for the store and the new nodes: in a real cluster they
# share no disk with the old ones, so latencies mean something only where this is another one (or
# /dev/shm, where it has the room). Needs curl, python3 and ss.
set -euo pipefail
[[ $# -ge 1 && $1 =~ ^[0-9]+$ ]] || {
    sed -n '2,19s/^# \?//p' "$0" >&2
    exit 2
}
megabytes=$1 value_kib=${2:-1024} rate=${RATE:-1000/s} keys=${KEYS:-100000} port=${PORT:-9700}
tako=$(realpath "${TAKO:-$(dirname "$0")/../target/release/tako}")
case ${MIRRORS:-3} in
1) old=(1) new=(4) ;;
3) old=(1 2 3) new=(4 5 6) ;;
*) echo "moving: MIRRORS is 1 or 3" >&2 && exit 2 ;;
esac
home=$(mktemp -d)
others=$(mktemp -d -p "${OTHERS:-$home}")
cd "$home"
declare -A pids=()
stop() {
    kill "${pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$home" "$others"
}
trap stop EXIT

http() { echo $((port + $1)); }
rpc() { echo $((port + 10 + $1)); }
node() { echo "n$1: [localhost, $(http "$1"), $(rpc "$1")]"; }
bucket() { # NUMBER…
    for n in "$@"; do printf '%s, ' "$(node "$n")"; done
}
# configuration ACTIVE [LINE]: written to a file that the coordinator watches.
configuration() {
    local first second
    first="{$(bucket "${old[@]}")}" second="{$(bucket "${new[@]}")}"
    cat >c.yaml.new <<YAML
active_deployment: $1
${2:-}
coordinators: {c1: [localhost, $(http 8)]}
store: {url: "file://$others/store"}
deployments:
    one: {hash: {buckets_per_key: 1}, buckets: {b1: $first}}
    two: {hash: {buckets_per_key: 1}, buckets: {b1: $first, b2: $second}}
YAML
    mv c.yaml.new c.yaml
    [[ -z ${pids[c1]:-} ]] || kill -HUP "${pids[c1]}"
}
start() {
    local name=$1
    shift
    "$tako" "$@" >>"$name.log" 2>&1 &
    pids[$name]=$!
}
start_node() { # NUMBER FOLDER
    start "n$1" node --id "n$1" --coordinator "localhost:$(http 8)" --var "$2/v$1" --store "file://$others/store"
}
now() { date +%s%3N; }
await() { # SECONDS WHAT COMMAND…
    local until=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        ((SECONDS < until)) || {
            echo "moving: $what did not come" >&2
            exit 1
        }
        sleep 0.05
    done
}
ready() { curl -sf -o /dev/null "localhost:$(http "$1")/readyz"; }
covered() {
    curl -s "localhost:$(http 7)/cluster" | python3 -c '
import json, sys
sys.exit(any(node["uncovered_partitions"] for node in json.load(sys.stdin)["nodes"]))'
}
# Cheap, for the cores are the nodes'.
came_to() { grep -q "phase=\"\(${1// /\\|}\)\"" c1.log; }
# What the processes of the nodes named have received so far, in KiB: all of it RPC, for the store is
# a folder.
received() {
    local name
    for name in "$@"; do
        ss -tinHOp state established | grep "pid=${pids[$name]}," | grep -o 'bytes_received:[0-9]*' || true
    done | awk -F: '{ sum += $2 } END { printf "%d", sum / 1024 }'
}
proxy="http://localhost:$(http 7)"
load() {
    "$tako" bench --url "$proxy" --mode open --rate "$rate" --connections 64 --keys "$keys" \
        --value-size 1KiB --read-share 0.5 --duration 45s --answers load.csv --output json \
        >load.json 2>load.log
}
report() { # NAME [FROM TO, of those due between in milliseconds]
    python3 - "$@" <<'PY'
import csv, json, sys
name, *span = sys.argv[1:]
begin, end = map(int, span or (0, 1 << 62))
target = json.load(open("load.json"))["target"]
micros = {"read": [], "write": []}
for answer in csv.DictReader(open("load.csv")):
    if begin <= int(answer["due_unix_ms"]) <= end:
        micros[answer["kind"]].append(int(answer["latency_us"]))
def at(kind, share):
    return sorted(micros[kind])[int(len(micros[kind]) * share)] / 1000
figures = "; ".join(f"{kind}s p50 {at(kind, 0.5):.2f} ms, p90 {at(kind, 0.9):.2f} ms, p99 {at(kind, 0.99):.2f} ms"
                    for kind in micros)
failed = "" if span else (f", errors {target['errors'] or 'none'},"
                          f" wrong answers {target['verification']['violations'] or 'none'}")
print(f"{name}: {sum(map(len, micros.values()))} requests{failed}; {figures}")
PY
}

configuration one
start c1 coordinator --id c1 --config c.yaml --var ./c1
for n in "${old[@]}"; do start_node "$n" .; done
start p1 proxy --id p1 --coordinator "localhost:$(http 8)" --port "$(http 7)" --var ./p1
for n in "${old[@]}" 7; do await 60 "the process at port $(http "$n")" ready "$n"; done

echo "== $megabytes MB in values of $value_kib KiB"
# A part at a time, for a disk that is slower than the load fills the journals.
for ((left = megabytes, part = 1; left > 0; left -= 512, part++)); do
    "$tako" bench --url "$proxy" --connections 4 --prefix "data$part/" \
        --keys $(((left < 512 ? left : 512) * 1024 / value_kib)) --value-size "${value_kib}KiB" \
        --read-share 1 --duration 1s >load.txt 2>&1 ||
        { cat load.txt >&2; exit 1; }
    await 600 "coverage of all partitions" covered
done
# What the load left to be done behind it, compaction above all, is no part of the move.
sync
written() {
    for n in "${old[@]}"; do cat "/proc/${pids[n$n]}/io"; done |
        awk '/^wchar/ { sum += $2 } END { printf "%d", sum }'
}
at_rest() {
    local was
    was=$(written)
    sleep 5
    (($(written) - was < 1000000))
}
begun=$(now)
await 900 "rest" at_rest
echo "at rest after $((($(now) - begun) / 1000)) s"
echo "store: $(du -sm "$others/store" | cut -f1) MB"

for n in "${new[@]}"; do start_node "$n" "$others"; done
for n in "${new[@]}"; do await 60 "the log of n$n" test -s "n$n.log"; done
if [[ $rate != 0 ]]; then
    load &
    loader=$!
    # Until steps have covered the preload, as they have all but the last writes in a cluster that
    # has run for long; then what is compared with.
    await 120 "the load" grep -q preloaded load.log
    sleep 20
fi
had=$(received "${new[@]/#/n}")
begun=$(now)
configuration one "target_deployment: two"
await 60 "write-both" came_to write-both
echo "written to both sets after $(($(now) - begun)) ms"
# The order is seen to the end: the move is finished by making the target the active deployment.
configuration two
await 60 "the end of reads at the old set" came_to "leave ended"
echo "reads and writes at the target after $(($(now) - begun)) ms;" \
    "the new nodes have received $(($(received "${new[@]/#/n}") - had)) KiB"
await 60 "the end" came_to ended
ended=$(now)
echo "ended after $((ended - begun)) ms"
if [[ $rate != 0 ]]; then
    wait "$loader"
    report "all of the load"
    report "10 s before the move" $((begun - 10000)) "$begun"
    report "10 s with the move" "$begun" $((begun + 10000))
    report "the move alone" "$begun" "$ended"
fi
((${#old[@]} > 1)) || exit 0
for _ in 1 2 3; do
    kill -9 "${pids[n2]}"
    wait "${pids[n2]}" 2>/dev/null || true
    rm -rf v2 "$others/v2" n2.log
    begun=$(now)
    start_node 2 "$others"
    await 60 "the replaced node" grep -q "state=Serving" n2.log
    echo "an empty n2 serves after $(($(now) - begun)) ms and has received $(received n2) KiB"
done
