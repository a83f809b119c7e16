#!/usr/bin/env bash
# How long moving takes, whatever lies in the store: the figures "Moving to other nodes" of docs/benchmarks.md.
#
#   loadtest/moving.sh MEGABYTES [VALUE_KIB]      (e.g. 100 64, then 10240 1024)
#
# A cluster of eight processes on this machine with a folder as the store: three nodes get
# MEGABYTES, then under load at a fixed rate a second bucket of three new nodes, then this one is
# given up again, and so on, MOVES=N times (default 4). Each move is compared with the seconds just
# before it, as the speed of a machine that others share swings. In the end one node is replaced
# three times by an empty one. Prints one line per figure.
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
    sed -n '2,21s/^# \?//p' "$0" >&2
    exit 2
}
megabytes=$1 value_kib=${2:-1024} rate=${RATE:-1000/s} keys=${KEYS:-100000} port=${PORT:-9700} moves=${MOVES:-4}
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
# Waits for one of these phases in the coordinator's log since the order, by sleeping until there is
# more of it: whoever looks again and again takes from the cores what the nodes are measured by.
came_to() { # WHAT PHASE…
    local what=$1 IFS='|'
    shift
    timeout 60 grep -qE "phase=\"($*)\"" < <(exec tail --pid=$$ -n "+$logged" -f c1.log) || {
        echo "moving: $what did not come" >&2
        exit 1
    }
}
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
        --value-size 1KiB --read-share 0.5 --duration $((20 + 24 * moves))s --answers load.csv --output json \
        >load.json 2>load.log
}
# What the load saw: all of it, the 10 s before each order, the 10 s from it, and from each order to
# its end. The moves are its arguments, as BEGIN-END in milliseconds.
report() {
    python3 - "$@" <<'PY'
import csv, json, statistics, sys
moves = [tuple(map(int, move.split("-"))) for move in sys.argv[1:]]
target = json.load(open("load.json"))["target"]
answers = [(int(row["due_unix_ms"]), row["kind"], int(row["latency_us"]))
           for row in csv.DictReader(open("load.csv"))]
def within(spans):
    micros = {"read": [], "write": []}
    for due, kind, latency in answers:
        if any(begin <= due <= end for begin, end in spans):
            micros[kind].append(latency)
    return {kind: sorted(all_of_it) for kind, all_of_it in micros.items()}
def at(micros, share):
    return micros[int(len(micros) * share)] / 1000
def show(name, micros):
    figures = "; ".join(f"{kind}s p50 {at(of, 0.5):.2f}, p90 {at(of, 0.9):.2f}, p99 {at(of, 0.99):.2f} ms"
                        for kind, of in micros.items())
    print(f"{name}: {sum(map(len, micros.values()))} requests; {figures}")
print(f"errors {target['errors'] or 'none'}, wrong answers {target['verification']['violations'] or 'none'}")
show("all of the load", within([(0, 1 << 62)]))
quiet = [(begin - 10000, begin) for begin, _ in moves]
before = within(quiet)
show("the 10 s before the orders", before)
for name, spans in [("the 10 s from the orders", [(begin, begin + 10000) for begin, _ in moves]),
                    ("the moves alone", moves)]:
    show(name, within(spans))
    for kind, of in within(spans).items():
        each = [at(within([span])[kind], 0.99) / at(within([was])[kind], 0.99)
                for span, was in zip(spans, quiet)]
        print(f"    p99 of {kind}s: {at(of, 0.99) / at(before[kind], 0.99):.2f} x before;"
              f" move by move {', '.join(f'{ratio:.2f}' for ratio in each)},"
              f" median {statistics.median(each):.2f}")
PY
}
stolen() { awk '/^cpu / { print $9 }' /proc/stat; }

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
    # has run for long.
    await 120 "the load" grep -qs preloaded load.log
    sleep 10
fi
spans=() active=one other=two stole=$(stolen) since=$SECONDS
for ((move = 1; move <= moves; move++)); do
    # What is compared with.
    [[ $rate == 0 ]] || sleep 10
    had=$(received "${new[@]/#/n}")
    logged=$(($(wc -l <c1.log) + 1))
    begun=$(now)
    configuration "$active" "target_deployment: $other"
    came_to "write-both" write-both
    both=$(($(now) - begun))
    # The order is seen to the end: the move is finished by making the target the active deployment.
    configuration "$other"
    came_to "the end of reads at the old set" leave ended
    serves=$(($(now) - begun))
    came_to "the end" ended
    ended=$(now)
    got=$(($(received "${new[@]/#/n}") - had))
    echo "move $move, $active to $other: written to both sets after $both ms;" \
        "reads and writes at the target after $serves ms; ended after $((ended - begun)) ms;" \
        "the new nodes have received $got KiB by then"
    spans+=("$begun-$ended")
    read -r active other <<<"$other $active"
    rest=$((begun + 11000 - ended))
    ((rest < 0)) || [[ $rate == 0 ]] || sleep "$(printf '%d.%03d' $((rest / 1000)) $((rest % 1000)))"
done
if [[ $rate != 0 ]]; then
    echo "taken by other machines on this host:" \
        "$((($(stolen) - stole) / (SECONDS - since) / $(nproc))) % of the processor time"
    wait "$loader"
    report "${spans[@]}"
    grep refused: load.log || true
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
