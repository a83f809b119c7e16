"""Replaces a node and grows buckets as docs/terraform.md says, with the rendered files.

Owns: the command lines and configurations that module tako renders before and after its buckets
grow, run on this machine: each member's name becomes a loopback address of its own, the bucket a
folder, and the flags for certificates and tokens are left out. In: outputs of both, a binary. Out:
(what was done, what went wrong) pairs.
"""
import json
import re
import shutil
import signal
import subprocess
import time
import urllib.request

import yaml

WAIT_SECONDS = 60
VALUES = 40


class Cluster:
    """Members as processes."""

    def __init__(self, outputs, tako, work):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        self.tako, self.work, self.processes = tako, work, {}
        # The last wins for members that both have: those that run are not told anything new.
        self.user_data = {**outputs["grown"]["user_data"], **outputs["made"]["user_data"]}
        members = sorted(m for m in self.user_data if re.fullmatch(r"[cn]\d+", m))
        self.addresses = {m: f"127.0.1.{i}" for i, m in enumerate(members, 1)}
        self.coordinator = f"{self.addresses['c1']}:17400"
        self.configurations = {}
        for name in ["made", "grown"]:
            path = work / f"{name}.yaml"
            path.write_text(self.here(outputs[name]["configuration"]))
            self.configurations[name] = path

    def here(self, text):
        text = re.sub(r"\b([cn]\d+)\.[a-z-]+\.internal\b", lambda m: self.addresses[m.group(1)], text)
        return re.sub(r"s3://[\w/-]+", f"file://{self.work}/store", text)

    def start(self, member):
        files = {f["path"]: f["content"] for f in yaml.safe_load(self.user_data[member])["write_files"]}
        role = json.loads(files["/etc/tako/boot.json"])["role"]
        unit = files[f"/etc/systemd/system/tako-{role}.service"]
        line = re.search(r"^ExecStart=/usr/local/bin/tako (.*)$", unit, re.M).group(1)
        line = re.sub(r" --(tls|tokens) \S+", "", self.here(line))
        folder = self.work / member
        folder.mkdir(exist_ok=True)
        words = [w.replace("/var/lib/tako", str(folder)) for w in line.split()]
        if role == "coordinator":
            shutil.copy(self.configurations["made"], folder / "cluster.yaml")
        with (self.work / f"{member}.log").open("a") as log:
            self.processes[member] = subprocess.Popen([self.tako, *words], stdout=log, stderr=log)

    def stop(self, member, how=signal.SIGTERM):
        process = self.processes.pop(member)
        process.send_signal(how)
        return process.wait(timeout=WAIT_SECONDS)

    def tell(self, *words):
        """A command of the operator: empty if it ends with 0."""
        command = [self.tako, *words, "-c", self.coordinator]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        return f"exit code {done.returncode}: {done.stdout}{done.stderr}" if done.returncode else ""

    def until(self, *words):
        end = time.monotonic() + WAIT_SECONDS
        while problem := self.tell(*words):
            if time.monotonic() > end:
                return problem
            time.sleep(1)
        return ""

    def url(self, member, key):
        return f"http://{self.addresses[member]}:5711/values/{key}"

    def put_all(self, member):
        for i in range(VALUES):
            request = urllib.request.Request(self.url(member, i), str(i).encode(), method="PUT")
            urllib.request.urlopen(request, timeout=20).close()

    def missing(self, member):
        """What a node does not answer as it was written."""
        wrong = []
        for i in range(VALUES):
            with urllib.request.urlopen(self.url(member, i), timeout=20) as answer:
                if answer.read() != str(i).encode():
                    wrong.append(str(i))
        return ", ".join(wrong)


def check(outputs, tako, work):
    cluster = Cluster(outputs, tako, work)
    try:
        yield from run(cluster)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield "moves", f"{error}; logs are in {work}"
    finally:
        for member in list(cluster.processes):
            cluster.stop(member, signal.SIGKILL)


def run(cluster):
    first = ["n1", "n2", "n3"]
    for member in ["c1", *first]:
        cluster.start(member)
    yield "a cluster starts from rendered files", cluster.until("ctl", "status")
    cluster.put_all("n1")

    # Replacing an instance: asked first, stopped in good order, back under its name with nothing.
    yield "n2 is safe to stop", cluster.until("ctl", "safe-to-stop", "n2")
    code = cluster.stop("n2")
    shutil.rmtree(cluster.work / "n2")
    cluster.start("n2")
    yield "n2 was stopped in good order", f"exit code {code}" if code else ""
    yield "n2 with an empty disk serves again", cluster.until("ctl", "status")
    yield "n2 knows all values", cluster.missing("n2")

    # Growing: instances first, then the order.
    grown = str(cluster.configurations["grown"])
    for member in ["n4", "n5", "n6"]:
        cluster.start(member)
    yield "the move is planned", cluster.until("migrate", "plan", "--to", grown)
    yield "the move is made", cluster.tell("migrate", "start", "--to", grown, "--wait")
    yield "all six nodes serve", cluster.until("ctl", "status")
    yield "a new node knows all values", cluster.missing("n6")

    # One less in each bucket again: nodes that were there first may leave.
    for member in ["n1", "n2", "n3"]:
        yield f"{member} is detached", cluster.tell("ctl", "detach", member)
        code = cluster.stop(member)
        yield f"{member} is stopped in good order", f"exit code {code}" if code else ""
    yield "those that stay know all values", cluster.missing("n4")
