#!/usr/bin/env bash
# Finds or builds MinIO, an S3 server, and prints where the program is.
#
#   examples/minio/get-minio.sh [--pinned]
#
# Takes target/tools/minio where it is the pinned version, else `minio` on the PATH, else builds the
# pinned version from source into target/tools: Go 1.24 or newer, a network, some minutes.
# --pinned  the pinned version and no other
set -euo pipefail
cd "$(dirname "$0")/../.."

# The newest there is: upstream makes no more releases.
version=v0.0.0-20260212201848-7aac2a2c5b7c
tools=$PWD/target/tools

if [[ -x $tools/minio && $(cat "$tools/minio.version" 2>/dev/null) == "$version" ]]; then
    echo "$tools/minio"
    exit
fi
if [[ ${1:-} != --pinned ]] && found=$(command -v minio); then
    echo "$found"
    exit
fi
if ! command -v go >/dev/null; then
    echo 'get-minio: there is no minio, and no go to build it with' >&2
    exit 1
fi
echo "get-minio: building MinIO $version; this takes some minutes" >&2
mkdir -p "$tools"
draft=$(mktemp -d "$tools/minio.XXXXXX")
trap 'rm -rf -- "$draft"' EXIT
GOBIN=$draft go install -trimpath -ldflags='-s -w' "github.com/minio/minio@$version" >&2
mv "$draft/minio" "$tools/minio"
echo "$version" >"$tools/minio.version"
echo "$tools/minio"
