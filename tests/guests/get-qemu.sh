#!/usr/bin/env bash
# get-qemu.sh FOLDER
#
# Unpacks the QEMU of Debian's trixie-backports for 64-bit Arm guests, with the libraries
# that it needs, into FOLDER, and writes FOLDER/qemu-system-aarch64, which runs it. The
# system is not touched; no root rights are needed. A FOLDER that is complete is kept.
#
# Needs apt and dpkg, the network, and 120 MB. For $DEBIAN_MIRROR see debian.sh.
set -euo pipefail
if (($# != 1)); then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
. "$(dirname "$(readlink -f "$0")")/debian.sh"

folder=$(realpath -m "$1")
program=$folder/qemu-system-aarch64
if [[ -x $program ]]; then
    "$program" --version | head -n 1
    exit
fi

# Built beside it and moved at the end, so that what is there is whole.
mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT

private_apt "$work/apt" trixie trixie-backports
fetch_with_needs trixie-backports qemu-system-arm
unpack_all "$work/root"
rm -rf "$work/apt" "$work"/root/{etc,var} \
    "$work"/root/usr/share/{doc,man,locale,icons,info,bash-completion,bug,lintian} \
    "$work/root/usr/bin/qemu-system-arm" # its 32-bit twin

# With a C library of its own, which may be newer than the system's.
cat >"$work/qemu-system-aarch64" <<'RUN'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
for loader in "$root"/usr/lib/*-linux-gnu*/ld-linux*.so.* "$root"/usr/lib*/ld-linux*.so.*; do
    [ -e "$loader" ] && break
done
libraries=$(echo "$root"/usr/lib/*-linux-gnu* | tr ' ' :)
exec "$loader" --library-path "$libraries" "$root/usr/bin/qemu-system-aarch64" \
    -L "$root/usr/share/qemu" "$@"
RUN
chmod 755 "$work" "$work/qemu-system-aarch64"
"$work/qemu-system-aarch64" --version | head -n 1

rm -rf "$folder"
mv "$work" "$folder"
