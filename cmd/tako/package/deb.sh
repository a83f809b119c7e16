#!/usr/bin/env bash
# Makes a Debian package of a built program: program, units, manual pages, completions.
#
#   cmd/tako/package/deb.sh BINARY FOLDER
#
# The same binary gives the same bytes: times are those of the last commit (SOURCE_DATE_EPOCH), owners
# root. Needs dpkg-deb and gzip. Prints the package's path.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=${1:?the program to be packed} out=${2:?the folder for the package}
[[ -x $binary ]] || {
    echo "deb.sh: there is no program $binary; cargo build --release --locked --package tako" >&2
    exit 1
}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
version=$("$binary" --version | awk '{ print $2 }')
architecture=$(dpkg --print-architecture)
# Which C library it was linked against says what it runs on.
libc=$(objdump -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1 | cut -d_ -f2)

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
umask 022
doc=$tree/usr/share/doc/tako
mkdir -p "$tree/DEBIAN" "$tree/usr/bin" "$tree/usr/lib/systemd/system" "$tree/usr/lib/sysusers.d" \
    "$tree/usr/share/man/man1" "$tree/usr/share/bash-completion/completions" \
    "$tree/usr/share/zsh/vendor-completions" "$tree/usr/share/fish/vendor_completions.d" "$doc/examples" \
    "$tree/usr/share/lintian/overrides"
install -m 755 "$binary" "$tree/usr/bin/tako"
strip --strip-unneeded "$tree/usr/bin/tako"
install -m 644 "$here"/systemd/*.service "$tree/usr/lib/systemd/system/"
install -m 644 "$here/systemd/tako.sysusers" "$tree/usr/lib/sysusers.d/tako.conf"
"$binary" man "$tree/usr/share/man/man1" > /dev/null
gzip -9n "$tree"/usr/share/man/man1/*
"$binary" completions bash > "$tree/usr/share/bash-completion/completions/tako"
"$binary" completions zsh > "$tree/usr/share/zsh/vendor-completions/_tako"
"$binary" completions fish > "$tree/usr/share/fish/vendor_completions.d/tako.fish"
install -m 644 "$here"/../../../examples/{standalone,cluster}.yaml "$doc/examples/"
cat > "$doc/copyright" << 'END'
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: tako

Files: *
Copyright: the authors of Tako
License: Apache-2.0
 The text is in /usr/share/common-licenses/Apache-2.0. The crates that are linked in have licences of
 their own, all of those that deny.toml in the source allows.
END
printf 'tako (%s) unstable; urgency=medium\n\n  * See the commits of the source.\n\n -- Tako <tako@localhost>  %s\n' \
    "$version" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n > "$doc/changelog.gz"
cat > "$tree/usr/share/lintian/overrides/tako" << 'END'
# Made by who runs it, for machines of their own.
tako: bogus-mail-host *
tako: bogus-mail-host-in-debian-changelog *
# A translation of it to Rust, of the crate serde_yaml.
tako: embedded-library libyaml *
END
cat > "$tree/DEBIAN/control" << END
Package: tako
Version: $version
Architecture: $architecture
Maintainer: Tako <tako@localhost>
Section: database
Priority: optional
Depends: libc6 (>= $libc), libgcc-s1
Recommends: systemd | systemd-standalone-sysusers
Installed-Size: $(du -sk "$tree" | cut -f1)
Description: distributed key-value store at home in object storage
 Nodes journal every write, serve hot data from memory and local disks,
 and keep bringing it into an S3-compatible object store that all share;
 a node is replaced in seconds, whatever the size of the data. Clients
 come by HTTP and by memcached's protocols.
END
cat > "$tree/DEBIAN/postinst" << 'END'
#!/bin/sh
# The user, and the folder for arguments and secrets. Nothing is started: which node this is, nobody knows.
set -e
if [ "$1" = configure ]; then
    if command -v systemd-sysusers > /dev/null; then
        systemd-sysusers tako.conf
    elif ! getent passwd tako > /dev/null; then
        echo "tako: make a user of that name; there is no systemd-sysusers" >&2
        exit 1
    fi
    install -d -m 750 -o root -g tako /etc/tako
    if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
fi
END
cat > "$tree/DEBIAN/postrm" << 'END'
#!/bin/sh
# Data and secrets stay: they are the operator's.
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
if [ "$1" = purge ] && [ -d /etc/tako ]; then rmdir --ignore-fail-on-non-empty /etc/tako; fi
END
chmod 755 "$tree/DEBIAN/postinst" "$tree/DEBIAN/postrm"
find "$tree" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$out"
dpkg-deb --root-owner-group -Zxz -b "$tree" "$out/tako_${version}_$architecture.deb" > /dev/null
echo "$out/tako_${version}_$architecture.deb"
