#!/bin/sh
# Makes the instance's NVMe the home of /var/lib/tako.
#
# Owns: formatting it where it is new, and mounting it. Runs at every start, before the node: a stop
# and start gives the instance another, empty disk. Only disks that call themselves EC2's instance
# storage are ever formatted, and only those without Tako's label.
set -eu
home=/var/lib/tako

disks=$(lsblk --nodeps --noheadings --paths --output NAME,MODEL |
    awk '/Amazon EC2 NVMe Instance Storage/ { print $1 }')
# shellcheck disable=SC2086 # one word per disk
set -- $disks
if [ $# -ne 1 ]; then
    echo "there are $# NVMe disks of instance storage, not one: choose another instance type" >&2
    exit 1
fi

if mountpoint -q "$home"; then
    exit 0
fi
if [ "$(blkid -s LABEL -o value "$1" || true)" != tako ]; then
    mkfs.ext4 -q -F -m 0 -L tako "$1"
fi
mkdir -p "$home"
mount -o noatime,nodev,nosuid,noexec "$1" "$home"
chown tako:tako "$home"
chmod 0750 "$home"
