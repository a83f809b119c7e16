#!/usr/bin/env python3
"""Tests of what instances run at their start: boot.py and disk.sh, as they are.

boot.py is run as a process against moto, which stands in for S3 and Secrets Manager, and a small
metadata service that insists on version 2; its signatures are compared with botocore's. disk.sh is
run with commands that only write down how they were called. Everything lies in a temporary folder
and on loopback.
"""
import datetime
import getpass
import hashlib
import http.server
import importlib.util
import json
import logging
import os
import pathlib
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import unittest
import urllib.request

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto.server import ThreadedMotoServer

TEMPLATES = pathlib.Path(__file__).resolve().parents[1] / "modules" / "boot" / "templates"
REGION = "eu-central-1"
BINARY = b"\x7fELF not really" * 100_000
TOKENS = "shop:\n  sha256: 00\n"
ROLE = {"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "wJalrXUtnFEMI", "Token": "session/+="}

spec = importlib.util.spec_from_file_location("boot", TEMPLATES / "boot.py")
boot = importlib.util.module_from_spec(spec)
spec.loader.exec_module(boot)


class MetadataService(http.server.BaseHTTPRequestHandler):
    """Version 2: nothing without a token that was asked for by PUT."""

    ANSWERS = {
        "/latest/meta-data/instance-id": "i-0abc",
        "/latest/meta-data/iam/security-credentials/": "tako-node",
        "/latest/meta-data/iam/security-credentials/tako-node": json.dumps(ROLE),
    }

    def do_PUT(self):
        told = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self.answer(200 if told and self.path == "/latest/api/token" else 400, "a token")

    def do_GET(self):
        if self.headers.get("X-aws-ec2-metadata-token") != "a token":
            return self.answer(401, "")
        found = self.ANSWERS.get(self.path)
        return self.answer(200 if found else 404, found or "")

    def answer(self, code, text):
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


class OtherCoordinator(http.server.BaseHTTPRequestHandler):
    """Says what is in force, to whoever has a certificate of the cluster."""

    def do_GET(self):
        text = json.dumps({"epoch": {}, "configuration": {"active_deployment": "later"}, "table": {}})
        self.send_response(200 if self.path == "/configuration" else 404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def serve(handler, context=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def stop(server):
    server.shutdown()
    server.server_close()


def certificate():
    """A CA and a certificate for localhost: (ca, cert, key), PEM."""
    now = datetime.datetime.now(datetime.timezone.utc)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def build(subject, public, extensions):
        made = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("ca"))
        made = made.public_key(public).serial_number(x509.random_serial_number())
        made = made.not_valid_before(now - datetime.timedelta(hours=1))
        made = made.not_valid_after(now + datetime.timedelta(days=1))
        for extension in extensions:
            made = made.add_extension(extension, critical=False)
        return made.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    return (
        build("ca", ca_key.public_key(), [x509.BasicConstraints(True, None)]),
        build("tako", key.public_key(), [x509.SubjectAlternativeName([x509.DNSName("localhost")])]),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )


class Signature(unittest.TestCase):
    def check(self, request, service, body):
        """Ours and botocore's are the same for the same request at the same time."""
        sha256 = hashlib.sha256(body).hexdigest()
        headers = {"X-Amz-Content-Sha256": sha256, **dict(request.header_items())}
        theirs = botocore.awsrequest.AWSRequest(
            request.get_method(), request.full_url, data=body, headers=headers
        )
        credentials = botocore.credentials.Credentials(
            ROLE["AccessKeyId"], ROLE["SecretAccessKey"], ROLE["Token"]
        )
        kind = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
        kind(credentials, service, REGION).add_auth(theirs)
        now = datetime.datetime.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
        boot.sign(request, service, REGION, ROLE, sha256, now)
        self.assertEqual(request.get_header("Authorization"), theirs.headers["Authorization"])

    def test_of_a_download_is_the_one_that_botocore_makes(self):
        url = f"https://releases.s3.{REGION}.amazonaws.com/tako/1.0/tako-x86_64%2Bmusl"
        self.check(urllib.request.Request(url), "s3", b"")

    def test_of_a_secret_is_the_one_that_botocore_makes(self):
        body = json.dumps({"SecretId": "arn"}).encode()
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "t.GetSecretValue"}
        url = f"https://secretsmanager.{REGION}.amazonaws.com/"
        self.check(urllib.request.Request(url, data=body, headers=headers), "secretsmanager", body)


class Boot(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        cls.moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        cls.moto.start()
        cls.endpoint = "http://%s:%d" % cls.moto.get_host_and_port()
        cls.metadata = serve(MetadataService)
        cls.ca, cls.cert, cls.key = certificate()
        told = {
            "region_name": REGION,
            "endpoint_url": cls.endpoint,
            "aws_access_key_id": "a",
            "aws_secret_access_key": "b",
        }
        cls.secrets = boto3.client("secretsmanager", **told)
        s3 = boto3.client("s3", **told)
        s3.create_bucket(Bucket="releases", CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket="releases", Key="tako/v1/tako", Body=BINARY)
        cls.tokens = cls.secrets.create_secret(Name="tokens", SecretString=TOKENS)["ARN"]
        pems = json.dumps({"ca": cls.ca, "cert": cls.cert, "key": cls.key})
        cls.tls = cls.secrets.create_secret(Name="tls", SecretString=pems)["ARN"]

    @classmethod
    def tearDownClass(cls):
        cls.moto.stop()
        stop(cls.metadata)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)

    def run_boot(self, **changes):
        told = {
            "role": "node",
            "region": REGION,
            "binary": {
                "name": "tako",
                "url": "s3://releases/tako/v1/tako",
                "sha256": hashlib.sha256(BINARY).hexdigest(),
            },
            "secrets": {"tls": self.tls, "tokens": self.tokens},
            "environment": {"OTEL_SERVICE_NAME": "tako"},
            "coordinator": None,
            **changes,
        }
        (self.root / "etc/tako").mkdir(parents=True, exist_ok=True)
        (self.root / "etc/tako/boot.json").write_text(json.dumps(told))
        (self.root / "etc/tako/cluster.yaml").write_text("active_deployment: rendered\n")
        command = [sys.executable, TEMPLATES / "boot.py", "--tries", "1", "--root", self.root]
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:%d" % self.metadata.server_port,
        }
        return subprocess.run(
            [*command, "--user", getpass.getuser()], env=environment, capture_output=True, text=True
        )

    def mode(self, name):
        return stat.S_IMODE((self.root / name).stat().st_mode)

    def test_brings_secrets_binary_and_environment(self):
        done = self.run_boot()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.root / "usr/local/bin/tako").read_bytes(), BINARY)
        self.assertEqual(self.mode("usr/local/bin/tako"), 0o755)
        for part, text in [("ca", self.ca), ("cert", self.cert), ("key", self.key)]:
            self.assertEqual((self.root / f"etc/tako/tls/{part}.pem").read_text(), text)
            self.assertEqual(self.mode(f"etc/tako/tls/{part}.pem"), 0o600)
        self.assertEqual(self.mode("etc/tako/tls"), 0o700)
        self.assertEqual((self.root / "etc/tako/tokens.yaml").read_text(), TOKENS)
        self.assertEqual(self.mode("etc/tako/tokens.yaml"), 0o600)
        environment = (self.root / "etc/tako/env").read_text().splitlines()
        self.assertEqual(
            environment, ["TAKO_INSTANCE=i-0abc", f"AWS_REGION={REGION}", "OTEL_SERVICE_NAME=tako"]
        )
        self.assertEqual(self.run_boot().returncode, 0, "a second start is like the first")

    def test_runs_no_binary_with_another_digest(self):
        other = {"name": "tako", "url": "s3://releases/tako/v1/tako", "sha256": "0" * 64}
        done = self.run_boot(binary=other)
        self.assertEqual(done.returncode, 1)
        self.assertIn("SHA-256", done.stderr)
        self.assertEqual(list((self.root / "usr/local/bin").iterdir()), [])

    def test_is_not_ready_before_secrets_have_values(self):
        empty = self.secrets.create_secret(Name="empty")["ARN"]
        done = self.run_boot(secrets={"tls": empty})
        self.assertEqual(done.returncode, 1)
        self.assertIn("not ready yet", done.stderr)
        self.assertFalse((self.root / "etc/tako/env").exists(), "the process must not start")
        pems = json.dumps({"ca": self.ca, "cert": self.cert, "key": self.key})
        self.secrets.put_secret_value(SecretId=empty, SecretString=pems)
        self.assertEqual(self.run_boot(secrets={"tls": empty}).returncode, 0)

    def test_refuses_a_secret_that_is_no_certificate(self):
        wrong = self.secrets.create_secret(Name="wrong", SecretString='{"ca": ""}')["ARN"]
        done = self.run_boot(secrets={"tls": wrong})
        self.assertEqual(done.returncode, 1)
        self.assertFalse((self.root / "etc/tako/tls").exists())

    def test_takes_changed_secrets_at_the_next_start(self):
        name = self.secrets.create_secret(Name="turning", SecretString="one: {}\n")["ARN"]
        self.run_boot(secrets={"tls": self.tls, "tokens": name})
        self.secrets.put_secret_value(SecretId=name, SecretString="two: {}\n")
        self.run_boot(secrets={"tls": self.tls, "tokens": name})
        self.assertEqual((self.root / "etc/tako/tokens.yaml").read_text(), "two: {}\n")

    def test_gives_a_first_coordinator_the_rendered_configuration_and_never_again(self):
        told = {"configuration": "/var/lib/tako/cluster.yaml", "peers": []}
        self.assertEqual(self.run_boot(coordinator=told).returncode, 0)
        path = self.root / "var/lib/tako/cluster.yaml"
        self.assertEqual(path.read_text(), "active_deployment: rendered\n")
        path.write_text("active_deployment: ordered\n")
        self.assertEqual(self.run_boot(coordinator=told).returncode, 0)
        self.assertEqual(path.read_text(), "active_deployment: ordered\n")

    def test_gives_a_replaced_coordinator_what_is_in_force_at_another(self):
        with tempfile.TemporaryDirectory() as folder:
            for part in ["ca", "cert", "key"]:
                pathlib.Path(folder, part).write_text(getattr(self, part))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(f"{folder}/cert", f"{folder}/key")
            context.load_verify_locations(f"{folder}/ca")
            context.verify_mode = ssl.CERT_REQUIRED
        other = serve(OtherCoordinator, context)
        self.addCleanup(stop, other)
        # The first does not answer, as nobody listens there.
        peers = ["localhost:1", f"localhost:{other.server_port}"]
        told = {"configuration": "/var/lib/tako/cluster.yaml", "peers": peers}
        done = self.run_boot(coordinator=told)
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads((self.root / "var/lib/tako/cluster.yaml").read_text())
        self.assertEqual(found, {"active_deployment": "later"})


class Disk(unittest.TestCase):
    """The script itself, with commands in its way that only write down how they were called."""

    NVME = "/dev/nvme1n1 Amazon EC2 NVMe Instance Storage"
    ROOT = "/dev/nvme0n1 Amazon Elastic Block Store"

    def run_disk(self, disks, label="", mounted=False):
        with tempfile.TemporaryDirectory() as folder:
            log = pathlib.Path(folder, "log")
            answers = {"lsblk": "cat <<'E'\n" + "\n".join(disks) + "\nE", "blkid": f"echo {label}"}
            for name in ["lsblk", "blkid", "mountpoint", "mkfs.ext4", "mount", "mkdir", "chown", "chmod"]:
                program = pathlib.Path(folder, name)
                code = 1 if name == "mountpoint" and not mounted else 0
                program.write_text(
                    f'#!/bin/sh\necho "{name} $*" >> {log}\n{answers.get(name, "")}\nexit {code}\n'
                )
                program.chmod(0o755)
            environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
            done = subprocess.run(
                ["sh", TEMPLATES / "disk.sh"], env=environment, capture_output=True, text=True
            )
            called = log.read_text().splitlines()
        return done.returncode, {line.split()[0]: line for line in called}

    def test_a_new_disk_is_formatted_and_mounted(self):
        code, called = self.run_disk([self.ROOT, self.NVME])
        self.assertEqual(code, 0)
        self.assertTrue(called["mkfs.ext4"].endswith("-L tako /dev/nvme1n1"), called)
        self.assertTrue(called["mount"].endswith("/dev/nvme1n1 /var/lib/tako"), called)

    def test_a_disk_of_tako_is_mounted_as_it_is(self):
        code, called = self.run_disk([self.ROOT, self.NVME], label="tako")
        self.assertEqual(code, 0)
        self.assertNotIn("mkfs.ext4", called)
        self.assertIn("mount", called)

    def test_what_is_mounted_stays(self):
        code, called = self.run_disk([self.NVME], label="tako", mounted=True)
        self.assertEqual(code, 0)
        self.assertFalse({"mkfs.ext4", "mount"} & set(called), called)

    def test_without_instance_storage_or_with_two_disks_nothing_is_touched(self):
        for disks in [[self.ROOT], [self.NVME, self.NVME.replace("nvme1", "nvme2")]]:
            code, called = self.run_disk(disks)
            self.assertEqual(code, 1)
            self.assertEqual(set(called), {"lsblk"})


if __name__ == "__main__":
    unittest.main()
