"""One conversation by pymemcache, by pylibmc in both protocols, and by python-binary-memcached.

With a name and a token behind host and port, by those that can log in.
"""

import glob
import os
import sys

# pylibmc brings a libsasl2 of its own, which looks for the plugins elsewhere than the system does.
os.environ.setdefault("SASL_PATH", ":".join(glob.glob("/usr/lib/*/sasl2")))

import bmemcached
import pylibmc
from pymemcache.client.base import Client

HOST, PORT = sys.argv[1], int(sys.argv[2])
LOGIN = dict(zip(("username", "password"), sys.argv[3:]))


def pymemcache():
    client = Client((HOST, PORT), timeout=10, default_noreply=False)
    assert client.set("py", "1", expire=100) and client.get("py") == b"1"
    assert not client.add("py", "2") and client.add("py-new", "2")
    assert client.replace("py", "3") and not client.replace("py-none", "3")
    value, token = client.gets("py")
    assert value == b"3" and client.cas("py", "4", token) is True
    assert client.cas("py", "5", token) is False and client.cas("py-none", "5", token) is None
    assert client.incr("py", 5) == 9 and client.decr("py", 2) == 7 and client.incr("py-none", 1) is None
    assert client.append("py", "x") and client.prepend("py", "_") and client.get("py") == b"_7x"
    assert client.touch("py", 100) and not client.touch("py-none", 100)
    assert client.set_many({f"py{n}": f"v{n}" for n in range(100)}) == []
    many = client.get_many([f"py{n}" for n in range(110)])
    assert len(many) == 100 and many["py42"] == b"v42"
    large = bytes(range(256)) * 2000
    assert client.set("py-large", large) and client.get("py-large") == large
    assert client.delete("py") and not client.delete("py") and client.get("py") is None
    assert b"tako" in client.version() and client.stats()[b"pointer_size"] == 64


def libmemcached(binary):
    client = pylibmc.Client([f"{HOST}:{PORT}"], binary=binary, behaviors={"cas": True, "no_block": False}, **LOGIN)
    key = f"lib{binary}"
    assert client.set(key, {"a": [1, 2]}) and client.get(key) == {"a": [1, 2]}
    assert not client.add(key, 1) and client.replace(key, 5)
    value, token = client.gets(key)
    assert value == 5 and client.cas(key, 6, token) and not client.cas(key, 7, token)
    assert client.incr(key, 4) == 10 and client.decr(key) == 9
    assert client.set_multi({f"{key}{n}": n for n in range(100)}) == []
    assert client.get_multi([f"{key}{n}" for n in range(110)]) == {f"{key}{n}": n for n in range(100)}
    assert client.append(f"{key}0", b"") is not None
    assert client.touch(key, 100) and client.delete(key) and client.get(key) is None
    assert client.get_stats()


def binary():
    client = bmemcached.Client((f"{HOST}:{PORT}",), *LOGIN.values())
    assert client.set("bin", "hello") and client.get("bin") == "hello"
    value, token = client.gets("bin")
    assert client.cas("bin", "w", token) and not client.cas("bin", "q", token)
    assert client.incr("bin-count", 1, default=5) == 5 and client.incr("bin-count", 3) == 8
    client.set_multi({f"bin{n}": str(n) for n in range(50)})
    assert len(client.get_multi([f"bin{n}" for n in range(60)])) == 50
    assert client.delete("bin") and client.get("bin") is None


if not LOGIN:
    pymemcache()
    libmemcached(False)
libmemcached(True)
binary()
print("ok")
