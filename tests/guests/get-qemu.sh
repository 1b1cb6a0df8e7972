#!/usr/bin/env bash
# get-qemu.sh FOLDER
#
# Unpacks the QEMU of Debian's trixie-backports for 64-bit Arm and x86-64 guests, with the
# libraries that it needs, into FOLDER, and writes FOLDER/qemu-system-aarch64 and
# FOLDER/qemu-system-x86_64, which run it. The system is not touched; no root rights are
# needed. A FOLDER that is complete is kept.
#
# Needs apt and dpkg, the network, and 160 MB. For $DEBIAN_MIRROR see debian.sh.
set -euo pipefail
if (($# != 1)); then
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
. "$(dirname "$(readlink -f "$0")")/debian.sh"

folder=$(realpath -m "$1")
programs=(qemu-system-aarch64 qemu-system-x86_64)

say_versions() { # FOLDER
    local program
    for program in "${programs[@]}"; do
        "$1/$program" --version | head -n 1
    done
}

is_complete() {
    local program
    for program in "${programs[@]}" root/usr/bin/{loader,qemu-bundle}; do
        [[ -x $folder/$program ]] || return 1
    done
}

if is_complete; then
    say_versions "$folder"
    exit
fi

# Built beside it and moved at the end, so that what is there is whole.
mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT

private_apt "$work/apt" trixie trixie-backports
fetch_with_needs trixie-backports qemu-system-arm qemu-system-x86
unpack_all "$work/root"
rm -rf "$work/apt" "$work"/root/{etc,var} \
    "$work"/root/usr/share/{doc,man,locale,icons,info,bash-completion,bug,lintian} \
    "$work"/root/usr/bin/qemu-system-{arm,i386} # their 32-bit twins

# With a C library of its own, which may be newer than the system's. Where the loader
# stands, QEMU looks for a "bundle" of all that belongs to it. Without one it takes the
# modules of the system's own QEMU, if there is one, and ends itself over their version.
for loader in "$work"/root/usr/{lib/*-linux-gnu*,lib*}/ld-linux*.so.*; do
    if [[ -e $loader ]]; then
        cp "$loader" "$work/root/usr/bin/loader"
        break
    fi
done
ln -s ../.. "$work/root/usr/bin/qemu-bundle"
cat >"$work/${programs[0]}" <<'RUN'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
libraries=$(echo "$root"/usr/lib/*-linux-gnu* | tr ' ' :)
exec "$root/usr/bin/loader" --library-path "$libraries" "$root/usr/bin/$(basename "$0")" \
    -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" "$@"
RUN
cp "$work/${programs[0]}" "$work/${programs[1]}"
chmod 755 "$work" "${programs[@]/#/$work/}"
say_versions "$work"

rm -rf "$folder"
mv "$work" "$folder"
