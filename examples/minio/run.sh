#!/usr/bin/env bash
# A local cluster whose snapshots are in MinIO, an S3 server: one command, Ctrl-C stops all.
#
#   examples/minio/run.sh [ARGUMENTS OF `tako cluster`]
#
# Everything lies in ./var/minio: the server's drives, the nodes' folders, logs, and `env` with
# what other programs need to reach the store. Run again, it goes on with what is there.
# MinIO is found or built by get-minio.sh; nothing listens beyond this machine.
# TAKO=PROGRAM runs that `tako` instead of `cargo run --release`; MINIO_PORT=N that port.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
home=$PWD/var/minio

refuse() {
    echo "minio/run: $1" >&2
    exit 1
}

minio=$("$root/examples/minio/get-minio.sh")
mkdir -p "$home"
if [[ -s $home/pid ]] && kill -0 "$(cat "$home/pid")" 2>/dev/null; then
    refuse "it runs already, or so says $home/pid"
fi

# A secret of this folder's own, for every user of this machine can reach the port.
if ! [[ -s $home/secret ]]; then
    (umask 077 && head -c 24 /dev/urandom | base64 | tr -d '+/=\n' >"$home/secret")
fi
export MINIO_ROOT_USER=tako
MINIO_ROOT_PASSWORD=$(cat "$home/secret")
export MINIO_ROOT_PASSWORD
# Else it serves a console on all addresses, and looks for updates.
export MINIO_BROWSER=off MINIO_UPDATE=off
# Drives may be folders of one disk.
export MINIO_CI_CD=on

answers() { curl -sf -o /dev/null --max-time 2 "http://127.0.0.1:$1/minio/health/ready"; }
taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Each in a process group of its own, so that Ctrl-C reaches this script only and the store goes
# last.
set -m
server='' tako=''
stop() {
    trap '' INT TERM HUP
    if [[ -n $tako ]]; then
        kill -TERM "$tako" 2>/dev/null || true
        wait "$tako" 2>/dev/null || true
    fi
    if [[ -n $server ]]; then
        kill -TERM "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        rm -f "$home/pid"
    fi
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# A folder in each drive is a bucket.
mkdir -p "$home"/drive{1,2,3,4}/tako
port=${MINIO_PORT:-9000}
for try in 1 2 3 4 5 6 7 8; do
    if ! taken "$port"; then
        "$minio" server --quiet --address "127.0.0.1:$port" "$home"/drive{1...4} \
            >"$home/minio.log" 2>&1 </dev/null &
        server=$!
        echo "$server" >"$home/pid"
        break
    fi
    [[ -z ${MINIO_PORT:-} ]] || refuse "port $port is taken"
    port=$((20000 + RANDOM % 20000))
done
[[ -n $server ]] || refuse 'no free port was found'
until answers "$port"; do
    kill -0 "$server" 2>/dev/null || refuse "MinIO ended: $(tail -n 5 "$home/minio.log")"
    sleep 0.1
done

(umask 077 && cat >"$home/env") <<EOF
export AWS_ENDPOINT=http://127.0.0.1:$port AWS_ALLOW_HTTP=true AWS_REGION=us-east-1
export AWS_ACCESS_KEY_ID=tako AWS_SECRET_ACCESS_KEY=$MINIO_ROOT_PASSWORD
EOF
# shellcheck source=/dev/null
. "$home/env"
echo "MinIO is at http://127.0.0.1:$port, log $home/minio.log"
echo "the store is s3://tako/cluster; \`. $home/env\` lets other programs reach it"

if [[ -n ${TAKO:-} ]]; then
    command=("$TAKO")
else
    command=(cargo run --release --quiet --manifest-path "$root/Cargo.toml" --)
fi
"${command[@]}" cluster --store s3://tako/cluster --var "$home/tako" "$@" </dev/null &
tako=$!
wait "$tako"
