#!/usr/bin/env python3
"""Makes schemas.json: the schemas of just those AWS resources and data sources that the modules use.

Owns: reading the bindings that CDK for Terraform publishes for the AWS provider, which carry every
attribute and block with its type and whether it is required, optional or computed. In: the wheel
of cdktf-cdktf-provider-aws (fetched with pip unless --wheel names one), and the names found in
../../**/*.tf. Out: schemas.json, read by provider.py.
Not here: what the bindings do not say (enumerations, ARN forms, conflicts between attributes).

Run it again after a module uses a resource for the first time; `terraform/check` says when.
"""
import argparse
import base64
import io
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
WHEEL = "cdktf-cdktf-provider-aws==21.22.1"
SCALARS = {"string": "string", "number": "number", "boolean": "bool", "any": "dynamic"}
GETTERS = {
    "getStringAttribute": "string",
    "getNumberAttribute": "number",
    "getBooleanAttribute": "bool",
    "getListAttribute": ["list", "string"],
    "getNumberListAttribute": ["list", "number"],
    "getStringMapAttribute": ["map", "string"],
    "getBooleanMapAttribute": ["map", "bool"],
    "getNumberMapAttribute": ["map", "number"],
}
# What provider configurations may say; by hand, as only the examples configure one.
PROVIDER = {
    "attributes": {"region": {"type": "string", "optional": True}},
    "blocks": {
        "default_tags": {
            "nesting": "list",
            "block": {
                "attributes": {"tags": {"type": ["map", "string"], "optional": True}},
                "blocks": {},
            },
        }
    },
}


def used():
    """The resources and data sources that the modules and examples name."""
    found = {"resource": set(), "data": set()}
    for path in HERE.parents[1].rglob("*.tf"):
        if ".terraform" not in path.parts:
            for kind, name in re.findall(
                r'^\s*(resource|data)\s+"(aws_\w+)"', path.read_text(), re.M
            ):
                found[kind].add(name)
    return found


class Bindings:
    """One resource's source text, cut into its classes and functions."""

    def __init__(self, text):
        self.text = text
        self.classes = {
            m.group(1): m.group(0)
            for m in re.finditer(r"^export class (\w+) .*?^}", text, re.M | re.S)
        }
        self.functions = {
            m.group(1): m.group(0)
            for m in re.finditer(r"^export function (\w+)\(.*?^}", text, re.M | re.S)
        }

    def top(self):
        """The schema of the resource itself."""
        (body,) = [
            c
            for c in self.classes.values()
            if re.search(r"extends cdktf\.Terraform(Resource|DataSource) ", c)
        ]
        return self.block(body, body[body.index("synthesizeHclAttributes") :])

    def block(self, body, mapper):
        """`body` says what is required and computed, `mapper` the types of what can be set."""
        attributes, blocks = {}, {}
        settable = {
            m.group(1): m.groups()[1:]
            for m in re.finditer(
                r"^ +(\w+): \{\s+value: (.*?),\s+isBlock: (\w+),\s+type: \"(\w+)\",\s+"
                r"storageClassType: \"(\w+)\"",
                mapper,
                re.M | re.S,
            )
        }
        members = re.split(r"^  // (?=\w+ - computed: )", body, flags=re.M)[1:]
        for member in members:
            name, computed, optional, required = re.match(
                r"(\w+) - computed: (\w+), optional: (\w+), required: (\w+)", member
            ).groups()
            flags = {
                flag: True
                for flag, value in
                [("computed", computed), ("optional", optional), ("required", required)]
                if value == "true"
            }
            if name not in settable:
                attributes[name] = {"type": self.computed(member), **flags}
                continue
            value, is_block, kind, storage = settable[name]
            if is_block == "false":
                attributes[name] = {"type": self.simple(kind, storage), **flags}
                continue
            mapped = re.search(r"(\w+ToHclTerraform)", value).group(1)
            nested_class = storage.removesuffix("List") if "List" in storage else storage
            reference = self.classes.get(nested_class + "OutputReference") or self.classes[storage]
            block = self.block(reference, self.functions[mapped])
            nesting = "single" if kind == "struct" else kind
            blocks[name] = {"nesting": nesting, "block": block}
            if "required" in flags:
                blocks[name]["min_items"] = 1
            if nesting != "single" and "listMapper" not in value:
                blocks[name]["max_items"] = 1
        return {"attributes": attributes, "blocks": blocks}

    @staticmethod
    def simple(kind, storage):
        if kind == "simple":
            return SCALARS[storage]
        element = storage.removesuffix("List").removesuffix("Map").removesuffix("Set")
        return [kind, SCALARS[element]]

    def computed(self, member):
        """The type of something that can only be read."""
        for getter, kind in GETTERS.items():
            if f"this.{getter}(" in member:
                return kind
        found = re.search(r"= new (\w+?)(List|Map|OutputReference)?\(this, \"\w+\"(, true)?", member)
        if not found:
            return "dynamic"
        name, shape, is_set = found.groups()
        inner = self.block(self.classes[name + "OutputReference"], "")
        obj = ["object", {k: v["type"] for k, v in inner["attributes"].items()}]
        if shape == "OutputReference":
            return obj
        return ["map" if shape == "Map" else "set" if is_set else "list", obj]


def source(archive, folder):
    """The TypeScript of one resource, kept whole in its source map."""
    text = archive.extractfile(f"package/lib/{folder}/index.js").read().decode()
    found = re.search(r"sourceMappingURL=data:application/json;base64,(\S+)", text).group(1)
    return json.loads(base64.b64decode(found))["sourcesContent"][0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=pathlib.Path, help="a wheel that is here already")
    wheel = parser.parse_args().wheel
    with tempfile.TemporaryDirectory() as folder:
        if not wheel:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder]
            subprocess.run([*command, WHEEL], check=True)
            (wheel,) = pathlib.Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = [n for n in outer.namelist() if n.endswith(".jsii.tgz")]
            archive = tarfile.open(fileobj=io.BytesIO(outer.read(name)))
    version = json.load(archive.extractfile("package/package.json"))["cdktf"]["provider"]["version"]
    names = used()
    made = {"provider_version": version, "provider": PROVIDER, "resource": {}, "data": {}}
    for kind, prefix in [("resource", ""), ("data", "data-aws-")]:
        for name in sorted(names[kind]):
            folder = prefix + name.removeprefix("aws_").replace("_", "-")
            made[kind][name] = Bindings(source(archive, folder)).top()
            print(f"{kind} {name}: {len(made[kind][name]['attributes'])} attributes")
    # One resource a line: changes of one are seen as such, and the file stays small.
    lines = ["{", f' "provider_version": {json.dumps(version)},']
    lines.append(f' "provider": {json.dumps(PROVIDER, sort_keys=True)},')
    for kind in ["resource", "data"]:
        lines.append(f' "{kind}": {{')
        rows = [f'  "{n}": {json.dumps(s, sort_keys=True)}' for n, s in made[kind].items()]
        lines.append(",\n".join(rows))
        lines.append(" }," if kind == "resource" else " }")
    (HERE / "schemas.json").write_text("\n".join([*lines, "}"]) + "\n")


if __name__ == "__main__":
    main()
