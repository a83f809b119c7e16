#!/usr/bin/env python3
"""Whether every crate in Cargo.lock has a licence that deny.toml allows. Needs cargo and no network."""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[3]


def allowed(expression, allow):
    """An expression of SPDX: `OR` needs one of both, `AND` both."""
    tokens = re.findall(r"\(|\)|[^\s()]+(?:\s+WITH\s+[^\s()]+)?", expression.replace("/", " OR "))

    def either(at):
        value, at = both(at)
        while at < len(tokens) and tokens[at] == "OR":
            other, at = both(at + 1)
            value = value or other
        return value, at

    def both(at):
        value, at = one(at)
        while at < len(tokens) and tokens[at] == "AND":
            other, at = one(at + 1)
            value = value and other
        return value, at

    def one(at):
        if tokens[at] == "(":
            value, at = either(at + 1)
            return value, at + 1
        return tokens[at] in allow, at + 1

    return either(0)[0]


def main():
    allow = set(tomllib.loads((ROOT / "deny.toml").read_text())["licenses"]["allow"])
    metadata = json.loads(subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--locked"],
        cwd=ROOT, check=True, capture_output=True).stdout)
    bad = [
        f"{crate['name']} {crate['version']}: {crate['license'] or 'no licence'}"
        for crate in metadata["packages"]
        if not crate["license"] or not allowed(crate["license"], allow)
    ]
    for line in bad:
        print(f"not allowed by deny.toml: {line}", file=sys.stderr)
    print(f"{len(metadata['packages'])} crates, {len(bad)} with a licence that deny.toml does not allow")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
