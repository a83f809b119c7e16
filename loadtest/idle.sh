#!/usr/bin/env bash
# What idle connections cost: one node; memory and the latency of a request before, and with IDLE (10000)
# connections open at its memcached port, and after they ended. Ends all it
# started.
set -euo pipefail
cd "$(dirname "$0")/.."
tako=${TAKO:-target/release/tako}
[[ -x $tako ]] || cargo build --quiet --release --package tako
ulimit -Sn "$(ulimit -Hn)"
folder=$(mktemp -d)
pid=
trap 'kill $pid 2> /dev/null || true; wait; rm -rf "$folder"' EXIT
read -r http rpc port < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(one.getsockname()[1] for one in held))')
cat > "$folder/c.yaml" << END
active_deployment: d
deployments: {d: {hash: {buckets_per_key: 1}, buckets: {b1: {n1: {host: 127.0.0.1, http_port: $http, memcached_port: $port, rpc_port: $rpc}}}}}
END
# As a shell gives it.
(ulimit -Sn 1024 && exec "$tako" node --id n1 --config "$folder/c.yaml" --var "$folder/var") > "$folder/log" 2>&1 &
pid=$!
for _ in $(seq 150); do
    curl -sf "http://127.0.0.1:$http/readyz" > /dev/null && break
    sleep 0.2
done
python3 - "$port" "$pid" "${IDLE:-10000}" << 'PY'
import socket, statistics, sys, time
port, pid, idle = map(int, sys.argv[1:])
def memory():
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024
def ask(stream, line, end):
    stream.sendall(line)
    got = b""
    while not got.endswith(end):
        piece = stream.recv(65536)
        if not piece:
            raise SystemExit("the connection ended")
        got += piece
    return got
def latency(stream):
    took = []
    for _ in range(2000):
        began = time.perf_counter()
        assert ask(stream, b"get k\r\n", b"END\r\n") == b"VALUE k 0 1\r\nv\r\nEND\r\n"
        took.append(time.perf_counter() - began)
    took.sort()
    return f"p50 {took[1000] * 1e6:.0f}, p99 {took[1980] * 1e6:.0f} microseconds"
first = socket.create_connection(("127.0.0.1", port))
assert ask(first, b"set k 0 0 1\r\nv\r\n", b"\r\n") == b"STORED\r\n"
print(f"no idle connections: {memory():.1f} MiB; a get: {latency(first)}")
began, held = time.monotonic(), []
for _ in range(idle):
    held.append(socket.create_connection(("127.0.0.1", port)))
for stream in held:
    ask(stream, b"version\r\n", b"\r\n")
print(f"{idle} connections opened and answered in {time.monotonic() - began:.1f} s")
print(f"{idle} idle connections: {memory():.1f} MiB; a get: {latency(first)}")
for stream in held[::100]:
    ask(stream, b"get k\r\n", b"END\r\n")
for stream in held:
    stream.close()
time.sleep(1)
print(f"after they ended: {memory():.1f} MiB; a get: {latency(first)}")
PY
