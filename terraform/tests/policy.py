"""Runs the real `tako` with no more than the rendered policies allow.

Owns: one coordinator and one node on loopback against moto, which enforces the policies that the
example renders: their actions and resources, but no conditions, and deletes of several keys only by
whether any are allowed. In: policies by role and a binary. Out: (what was tried, what went wrong)
pairs. The processes speak without TLS here (--insecure): what is tried is their use of the store.
"""
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request

BUCKET = "example-tako"
READY_SECONDS = 90


def check(policies, tako, work):
    # moto reads it when it is imported: so many calls are free, those that make users and bucket.
    os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "9"
    import boto3
    from moto.server import ThreadedMotoServer
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    endpoint = "http://%s:%d" % moto.get_host_and_port()
    told = {
        "endpoint_url": endpoint,
        "region_name": "us-east-1",
        "aws_access_key_id": "a",
        "aws_secret_access_key": "b",
    }
    iam, s3 = boto3.client("iam", **told), boto3.client("s3", **told)
    s3.create_bucket(Bucket=BUCKET)
    keys = {}
    for role, policy in [("node", policies["node"]), ("coordinator", policies["coordinator"])]:
        iam.create_user(UserName=role)
        iam.put_user_policy(UserName=role, PolicyName="tako", PolicyDocument=for_moto(policy))
        keys[role] = iam.create_access_key(UserName=role)["AccessKey"]
    nobody = iam.create_user(UserName="nobody") and iam.create_access_key(UserName="nobody")
    # From here on every call is judged.
    try:
        yield from run(endpoint, keys, nobody["AccessKey"], tako, work)
    finally:
        moto.stop()


def for_moto(policy):
    """S3 asks for DeleteObject on each key that a request for several names, moto on the bucket."""
    document = json.loads(policy)
    bulk = {"Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": [f"arn:aws:s3:::{BUCKET}"]}
    return json.dumps({**document, "Statement": [*document["Statement"], bulk]})


def refusal(endpoint, key, name):
    """Empty if S3 refuses to take an object of that name."""
    import boto3
    import botocore.exceptions

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    try:
        client.put_object(Bucket=BUCKET, Key=name, Body=b"")
    except botocore.exceptions.ClientError as error:
        return "" if error.response["Error"]["Code"] == "AccessDenied" else str(error)
    return f"{name} was written"


def run(endpoint, keys, nobody, tako, work):
    work.mkdir(parents=True, exist_ok=True)
    ports = free_ports(3)
    configuration = {
        "active_deployment": "cluster",
        "coordinators": {"c1": ["127.0.0.1", ports[0]]},
        "partitions": 2,
        "store": {"url": f"s3://{BUCKET}/cluster"},
        "snapshot": {"interval": "1s"},
        "backups": [{"every": "1m", "keep": 1}],
        "deployments": {
            "cluster": {
                "hash": {"buckets_per_key": 1},
                "buckets": {"b1": {"n1": ["127.0.0.1", ports[1], ports[2]]}},
            }
        },
    }
    path = work / "policy.yaml"
    path.write_text(json.dumps(configuration))
    coordinator = f"127.0.0.1:{ports[0]}"

    def start(name, key, *words):
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": endpoint,
            "AWS_ALLOW_HTTP": "true",
        }
        log = work / f"{name}.log"
        folder = work / f"var-{os.getpid()}"
        with log.open("w") as file:
            command = [tako, *words, "--var", folder, "--insecure"]
            return subprocess.Popen(command, stderr=file, stdout=file, env=environment), log

    # A key without a policy is refused: else moto judges nothing, and nothing was tried.
    refused, log = start("nobody", nobody, "coordinator", "--config", path)
    time.sleep(2)
    refused.kill()
    refused.wait()
    problem = "" if "AccessDenied" in log.read_text() else f"it was not refused:\n{log.read_text()}"
    yield "a key without a policy is refused", problem

    name = "another-cluster/config/1"
    yield "a node writes nothing outside of its prefix", refusal(endpoint, keys["node"], name)
    name = "cluster/partitions/1-0/db/compacted/1.sst"
    yield "a coordinator writes no tables", refusal(endpoint, keys["coordinator"], name)

    made = [
        start("coordinator", keys["coordinator"], "coordinator", "--id", "c1", "--config", path),
        start("node", keys["node"], "node", "--id", "n1", "--coordinator", coordinator),
    ]
    try:
        url = f"http://127.0.0.1:{ports[1]}"
        problem = wait(lambda: get(f"{url}/readyz"))
        yield "with the node's policy it serves", problem and f"{problem}\n{tail(made[1][1])}"
        if problem:
            return
        for i in range(50):
            request = urllib.request.Request(f"{url}/values/key-{i}", b"v" * 1000, method="PUT")
            urllib.request.urlopen(request, timeout=10).close()
        yield "with the coordinator's policy it makes a backup", wait(
            lambda: "1m-" in list_backups(tako, endpoint, keys["coordinator"])
        )
        made[1][0].send_signal(signal.SIGTERM)
        code = made[1][0].wait(timeout=60)
        yield "with the node's policy it drains", f"exit code {code}" if code else ""
    finally:
        for process, _ in made:
            process.kill()
            process.wait()
    for process, log in made:
        found = re.findall(r".*(?:AccessDenied|403 Forbidden).*", log.read_text())
        yield f"nothing is refused to the {log.stem}", "\n".join(found[:5])


def list_backups(tako, endpoint, key):
    environment = {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }
    command = [tako, "ctl", "snapshot", "list", "--store", f"s3://{BUCKET}/cluster"]
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def tail(log):
    return "\n".join(log.read_text().splitlines()[-3:])


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status == 200


def wait(condition):
    """Empty once it holds; else what stood in its way at last."""
    until, last = time.monotonic() + READY_SECONDS, "not yet"
    while time.monotonic() < until:
        try:
            if condition():
                return ""
        except OSError as error:
            last = str(error)
        time.sleep(0.5)
    return f"not within {READY_SECONDS} s: {last}"


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
