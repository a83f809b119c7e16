#!/usr/bin/python3
"""Makes this instance ready for its process: secrets, the release's binary, what it has to know.

Owns: everything that comes from AWS at a start, fetched with the instance's own role. In:
/etc/tako/boot.json. Out: /etc/tako/tls, /etc/tako/tokens.yaml, /usr/local/bin/NAME, /etc/tako/env,
and for a coordinator its configuration. Runs at every start, before the process; it waits and tries
again for as long as something is not there, as secrets are put by hand after the instances are made.
Only Python's standard library: nothing is installed from the internet.
Not here: the disk (disk.sh), running the process (the units).
"""
import argparse
import datetime
import grp
import hashlib
import hmac
import json
import os
import pathlib
import pwd
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

WAIT_SECONDS = 10
PEER_ROUNDS = 3
ANSWER_SECONDS = 10
EMPTY = hashlib.sha256(b"").hexdigest()


def log(text):
    print(text, file=sys.stderr, flush=True)


class Metadata:
    """The instance metadata service, version 2 only."""

    def __init__(self):
        default = "http://169.254.169.254"
        self.base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", default).rstrip("/")

    def get(self, path):
        ask = urllib.request.Request(
            f"{self.base}/latest/api/token",
            method="PUT",
            headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"},
        )
        with urllib.request.urlopen(ask, timeout=ANSWER_SECONDS) as answer:
            token = answer.read().decode()
        ask = urllib.request.Request(
            f"{self.base}/latest/meta-data/{path}", headers={"X-aws-ec2-metadata-token": token}
        )
        with urllib.request.urlopen(ask, timeout=ANSWER_SECONDS) as answer:
            return answer.read().decode()

    def credentials(self):
        role = self.get("iam/security-credentials/").strip()
        return json.loads(self.get(f"iam/security-credentials/{role}"))


def sign(request, service, region, credentials, body_sha256, now):
    """Adds AWS's signature, version 4, to a request whose path needs no further escaping."""
    url = urllib.parse.urlsplit(request.full_url)
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {k.lower(): v for k, v in request.header_items()}
    headers |= {"host": url.netloc, "x-amz-date": stamp, "x-amz-content-sha256": body_sha256}
    if credentials.get("Token"):
        headers["x-amz-security-token"] = credentials["Token"]
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers))
    canonical = f"{request.get_method()}\n{url.path or '/'}\n\n{lines}\n{names}\n{body_sha256}"
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = ("AWS4" + credentials["SecretAccessKey"]).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    for name in set(headers) - {"host"}:
        request.add_header(name, headers[name])
    request.add_header(
        "Authorization",
        f"AWS4-HMAC-SHA256 Credential={credentials['AccessKeyId']}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}",
    )
    return request


class Aws:
    """The two calls that are needed. AWS_ENDPOINT_URL stands in for AWS itself in tests."""

    def __init__(self, region, metadata):
        self.region, self.metadata = region, metadata
        self.endpoint = os.environ.get("AWS_ENDPOINT_URL", "").rstrip("/")

    def send(self, request, service, body_sha256):
        now = datetime.datetime.now(datetime.timezone.utc)
        sign(request, service, self.region, self.metadata.credentials(), body_sha256, now)
        return urllib.request.urlopen(request, timeout=60)

    def secret(self, arn):
        url = self.endpoint or f"https://secretsmanager.{self.region}.amazonaws.com"
        body = json.dumps({"SecretId": arn}).encode()
        request = urllib.request.Request(
            url + "/",
            data=body,
            headers={
                "Content-Type": "application/x-amz-json-1.1",
                "X-Amz-Target": "secretsmanager.GetSecretValue",
            },
        )
        with self.send(request, "secretsmanager", hashlib.sha256(body).hexdigest()) as answer:
            return json.load(answer)["SecretString"]

    def download(self, url, target):
        """Writes s3://BUCKET/KEY to a file; gives its SHA-256."""
        bucket, key = url.removeprefix("s3://").split("/", 1)
        key = urllib.parse.quote(key, safe="/-_.~")
        host = f"https://{bucket}.s3.{self.region}.amazonaws.com"
        host = f"{self.endpoint}/{bucket}" if self.endpoint else host
        sha256 = hashlib.sha256()
        with self.send(urllib.request.Request(f"{host}/{key}"), "s3", EMPTY) as answer:
            with open(target, "wb") as file:
                while block := answer.read(1 << 20):
                    sha256.update(block)
                    file.write(block)
        return sha256.hexdigest()


class Host:
    """This machine's files, below `root`, and the user that the process runs as."""

    def __init__(self, root, user):
        self.root = pathlib.Path(root)
        try:
            self.owner = pwd.getpwnam(user).pw_uid, grp.getgrnam(user).gr_gid
        except KeyError:
            raise SystemExit(f"there is no user {user}") from None

    def path(self, name):
        return self.root / name.lstrip("/")

    def write(self, name, text, mode, owned=True):
        """Whole or not at all: a process that starts meanwhile never reads half a file."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if owned and os.geteuid() == 0:
            os.chown(new, *self.owner)
        new.chmod(mode)
        new.rename(path)


def install_tls(host, aws, arn):
    found = json.loads(aws.secret(arn))
    if not all(isinstance(found.get(part), str) and found[part] for part in ["ca", "cert", "key"]):
        raise ValueError('the TLS secret is not {"ca": …, "cert": …, "key": …}')
    folder = host.path("/etc/tako/tls")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(folder, *host.owner)
    for part in ["ca", "cert", "key"]:
        host.write(f"/etc/tako/tls/{part}.pem", found[part].rstrip() + "\n", 0o600)


def install_binary(host, aws, binary):
    """The release, verified before it gets the name under which it is run."""
    path = host.path(f"/usr/local/bin/{binary['name']}")
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == binary["sha256"]:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    found = aws.download(binary["url"], new)
    if found != binary["sha256"]:
        new.unlink()
        raise ValueError(f"{binary['url']} has SHA-256 {found}, not {binary['sha256']}")
    new.chmod(0o755)
    new.rename(path)


def configuration_in_force(host, peers):
    """What another coordinator publishes, or None. Its file may be newer than the rendered one."""
    context = ssl.create_default_context(cafile=host.path("/etc/tako/tls/ca.pem"))
    tls = host.path("/etc/tako/tls")
    context.load_cert_chain(tls / "cert.pem", tls / "key.pem")
    for turn in range(PEER_ROUNDS if peers else 0):
        for peer in peers:
            try:
                with urllib.request.urlopen(
                    f"https://{peer}/configuration", timeout=ANSWER_SECONDS, context=context
                ) as answer:
                    return json.load(answer)["configuration"]
            except (OSError, ValueError, KeyError) as error:
                log(f"coordinator {peer} tells no configuration: {error}")
        if turn + 1 < PEER_ROUNDS:
            time.sleep(WAIT_SECONDS)
    return None


def install_configuration(host, coordinator):
    """Once: afterwards the coordinator itself writes this file, as it is given orders."""
    path = coordinator["configuration"]
    if host.path(path).exists():
        return
    found = configuration_in_force(host, coordinator["peers"])
    rendered = host.path("/etc/tako/cluster.yaml").read_text()
    log("the configuration is " + ("the rendered one" if found is None else "the one in force"))
    text = rendered if found is None else json.dumps(found, ensure_ascii=False) + "\n"
    host.write(path, text, 0o640)


def prepare(host, told):
    metadata = Metadata()
    aws = Aws(told["region"], metadata)
    install_tls(host, aws, told["secrets"]["tls"])
    if told["secrets"].get("tokens"):
        host.write("/etc/tako/tokens.yaml", aws.secret(told["secrets"]["tokens"]), 0o600)
    if told["secrets"].get("scrape_token"):
        token = aws.secret(told["secrets"]["scrape_token"]).strip()
        host.write("/etc/tako/scrape-token", token, 0o600)
    install_binary(host, aws, told["binary"])
    instance = metadata.get("instance-id")
    lines = [f"TAKO_INSTANCE={instance}", f"AWS_REGION={told['region']}"]
    lines += [f"{name}={value}" for name, value in sorted(told["environment"].items())]
    host.write("/etc/tako/env", "\n".join(lines) + "\n", 0o644, owned=False)
    if told.get("coordinator"):
        install_configuration(host, told["coordinator"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="/", help="where the file system begins")
    parser.add_argument("--user", default="tako")
    parser.add_argument("--tries", type=int, help="give up after so many; else never")
    args = parser.parse_args()
    host = Host(args.root, args.user)
    told = json.loads(host.path("/etc/tako/boot.json").read_text())
    tries = 0
    while True:
        tries += 1
        try:
            prepare(host, told)
            return
        except (OSError, ValueError, KeyError) as error:
            detail = error.read().decode(errors="replace") if hasattr(error, "read") else ""
            log(f"not ready yet: {error} {detail[:300]}".rstrip())
        if args.tries and tries >= args.tries:
            raise SystemExit(1)
        time.sleep(WAIT_SECONDS)


if __name__ == "__main__":
    main()
