"""Gives what the examples render to the real `tako`.

Owns: taking outputs out of a mocked `terraform test`, the rules for user data, and running `tako
check` on configurations and every command line of a unit up to where it would begin to work. In:
the test's messages and a binary. Out: (what was checked, what is wrong with it) pairs.
Not here: what the binary does with the configuration once it runs.
"""
import base64
import gzip
import json
import re
import shlex
import subprocess

import yaml

USER_DATA_BYTES_MAX = 16384
# What units may refer to, with what boot.py would have written.
ENVIRONMENT = {"TAKO_INSTANCE": "i-0123456789abcdef0"}
BOOT_FILES = {"/etc/tako/boot.json", "/usr/local/lib/tako/boot.py"}


def outputs_of(messages):
    """Outputs by run that was applied, with the user data of its instances as EC2 gets it."""
    found = {}
    for line in messages.splitlines():
        message = json.loads(line) if line.startswith("{") else {"type": ""}
        if message["type"] == "test_state":
            state = message["test_state"]
            outputs = {name: o["value"] for name, o in state.get("outputs", {}).items()}
            outputs["sent"] = list(user_data_sent(state["root_module"]))
            found[message["@testrun"]] = outputs
    if not found or not all("configuration" in outputs for outputs in found.values()):
        raise ValueError("no run was applied, or there are no outputs")
    return found


def user_data_sent(module):
    for resource in module.get("resources", []):
        values = resource["values"]
        if resource["type"] == "aws_instance":
            yield resource["address"], values["user_data_base64"]
        if resource["type"] == "aws_launch_template":
            yield resource["address"], values["user_data"]
    for child in module.get("child_modules", []):
        yield from user_data_sent(child)


def check(outputs, tako, work):
    """Everything about one example."""
    work.mkdir(parents=True, exist_ok=True)
    yield from check_configuration(outputs, tako, work)
    texts = sorted(outputs["user_data"].items())
    for member, text in texts:
        (work / f"{member}.user-data.yaml").write_text(text)
        problems = [p for p in check_user_data(member, text, outputs, tako, work) if p]
        yield f"user data of {member}", "\n".join(problems)
    yield "user data as it is sent", sent_problem(outputs["sent"], dict(texts))


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def check_configuration(outputs, tako, work):
    """`tako check` reads it, warns of nothing, and sees the nodes that Terraform makes."""
    path = work / "cluster.yaml"
    path.write_text(outputs["configuration"])
    code, out, err = run(tako, "check", "--output", "json", path)
    yield "tako check cluster.yaml", f"exit code {code}: {err}" if code or "warning" in err else ""
    if code:
        return
    seen = json.loads(out)
    nodes = {
        f"{id}={node['host']}:{node['http_port']}:{node['rpc_port']}"
        for bucket in seen["deployments"][seen["active_deployment"]]["buckets"].values()
        for id, node in bucket.items()
    }
    made = {node["place"] for node in outputs["nodes"].values()}
    problem = f"tako sees {sorted(nodes)}, Terraform makes {sorted(made)}"
    yield "its nodes are the instances", problem if nodes != made else ""
    store = seen["store"]["url"]
    yield "its store is the bucket", f"{store}" if store != outputs["store_url"] else ""


def check_user_data(member, text, outputs, tako, work):
    """cloud-init can read it, and everything that a unit runs is there or is brought by boot.py."""
    if not text.startswith("#cloud-config\n"):
        yield "the first line is not #cloud-config"
        return
    told = yaml.safe_load(text)
    files = {file["path"]: file["content"] for file in told["write_files"]}
    if missing := BOOT_FILES - set(files):
        yield f"files are missing: {missing}"
    boot = json.loads(files["/etc/tako/boot.json"])
    if boot.get("coordinator") and files.get("/etc/tako/cluster.yaml") != outputs["configuration"]:
        yield "its configuration is another one"
    brought = {f"/usr/local/bin/{boot['binary']['name']}"}

    enabled = {word for line in told["runcmd"] for word in line if word.endswith(".service")}
    units = {path.rsplit("/", 1)[1]: c for path, c in files.items() if path.endswith(".service")}
    if set(units) != enabled:
        yield f"units {sorted(units)}, enabled {sorted(enabled)}"
    lines = [line for c in units.values() for line in re.findall(r"^ExecStart=(.*)$", c, re.M)]
    if len(lines) != len(units):
        yield f"{len(units)} units, {len(lines)} command lines"
    for unit, content in units.items():
        (work / f"{member}.{unit}").write_text(content)
    for line in lines:
        words = [
            re.sub(r"\$\{(\w+)\}", lambda m: ENVIRONMENT[m.group(1)], word)
            for word in shlex.split(line)
        ]
        if words[0] not in set(files) | brought:
            yield f"{words[0]} is brought by nobody"
        if words[0] == "/usr/local/bin/tako":
            yield command_problem(tako, words[1:])
    # YAML is a configuration's, a collector's or nothing: all of it can be read.
    for path, content in files.items():
        if path.endswith(".yaml"):
            yaml.safe_load(content)


def command_problem(tako, words):
    """clap reads all words before it comes to --help; one that it does not know ends with code 2."""
    code, out, err = run(tako, *words, "--help")
    if code or "Usage: tako" not in out:
        return f"exit code {code}: tako {' '.join(words)}\n{err}"
    # That the rule above holds for this binary, too: else nothing was checked.
    code, _, err = run(tako, *words, "--no-such-flag", "--help")
    return "" if code == 2 else f"an unknown flag is taken: exit code {code}, {err}"


def sent_problem(sent, texts):
    """EC2 gets the same text, compressed, and not more than it takes."""
    found = []
    for address, encoded in sent:
        raw = base64.b64decode(encoded)
        if len(raw) > USER_DATA_BYTES_MAX:
            found.append(f"{address}: {len(raw)} bytes")
        if gzip.decompress(raw).decode() not in texts.values():
            found.append(f"{address}: another text")
    if len(sent) != len(texts):
        found.append(f"{len(sent)} sent, {len(texts)} rendered")
    return "\n".join(found)
