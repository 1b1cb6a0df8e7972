#!/usr/bin/env bash
# build.sh FOLDER [GUEST...]
#
# Puts the guests of the tests into FOLDER, each as GUEST.Image.gz and GUEST.initrd.gz:
# arm64be-64k, arm64be-4k, arm64le-64k and arm64le-4k, or those that are named. A guest
# that is there already is kept.
#
# They are built from Debian's package linux-source-6.12 (trixie), which is downloaded
# and unpacked in a private place; about 3 minutes each on two cores, 3 GB while it
# lasts. With BALLOON_GUEST_CACHE=FOLDER guests that were built before are taken from
# there. No root rights are needed. For $DEBIAN_MIRROR see debian.sh.
#
# Needs: apt install make gcc gcc-aarch64-linux-gnu bc bison flex libelf-dev libssl-dev \
#        patch xz-utils python3
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
if (($# < 1)); then
    sed -n '2,15s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
out=$(realpath -m "$1")
shift
(($#)) || set -- arm64be-64k arm64be-4k arm64le-64k arm64le-4k

export ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-
# Nothing of the building machine goes into the results.
export KBUILD_BUILD_USER=balloon KBUILD_BUILD_HOST=guests KBUILD_BUILD_VERSION=1
export KBUILD_BUILD_TIMESTAMP='Thu Jan 1 00:00:00 UTC 2026'

is_there() { # FOLDER GUEST
    [[ -f $1/$2.Image.gz && -f $1/$2.initrd.gz ]]
}

check_tools() {
    local tool missing=()
    for tool in make gcc "${CROSS_COMPILE}gcc" bc bison flex patch xz python3; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    if ((${#missing[@]})); then
        echo "not on this machine: ${missing[*]}" >&2
        sed -n '/^# Needs:/,/^set/s/^# \(.*\)/\1/p' "$0" >&2
        exit 1
    fi
}

get_source() {
    . "$here/debian.sh"
    private_apt "$work/apt" trixie
    (cd "$work" && "${APT[@]}" download linux-source-6.12)
    dpkg-deb --fsys-tarfile "$work"/linux-source-6.12_*.deb |
        tar --extract --to-stdout ./usr/src/linux-source-6.12.tar.xz |
        tar --extract --xz --directory "$work"
    source=$work/linux-source-6.12
}

configure() { # GUEST, as arm64ORDER-PAGE
    local order=${1:5:2} page=${1#*-} fragments option
    fragments=("$here"/config/{common,arm64,"$order","$page"}.config)
    make -s -C "$source" O="$kernel" allnoconfig
    (cd "$kernel" && "$source/scripts/kconfig/merge_config.sh" -m -O . .config \
        "${fragments[@]}" >merge.log && make -s olddefconfig)
    grep -h = "${fragments[@]}" | while read -r option; do
        if ! grep -qxF "$option" "$kernel/.config"; then
            echo "$1: the kernel does not accept $option" >&2
            exit 1
        fi
    done
}

build_modules() {
    echo 'obj-m := virtio_balloon_pre34.o' >"$ours/Makefile"
    patch --quiet -o "$ours/virtio_balloon_pre34.c" \
        "$source/drivers/virtio/virtio_balloon.c" "$here/pre34.patch"
    make -s -C "$kernel" M="$ours" modules
    "${CROSS_COMPILE}strip" --strip-debug \
        "$kernel/drivers/virtio/virtio_balloon.ko" "$ours/virtio_balloon_pre34.ko"
}

build_init() {
    local endian=
    if grep -qx CONFIG_CPU_BIG_ENDIAN=y "$kernel/.config"; then
        endian=-mbig-endian
    fi
    make -s -C "$kernel" headers
    "${CROSS_COMPILE}gcc" $endian -Os -Wall -static -nostdlib -nostdinc \
        -fno-asynchronous-unwind-tables -fno-ident -fno-stack-protector \
        -isystem "$("${CROSS_COMPILE}gcc" -print-file-name=include)" \
        -I"$kernel/usr/include" -I"$source/tools/include/nolibc" -include nolibc.h \
        -Wl,--build-id=none -s -o "$ours/init" "$here/init.c" -lgcc
}

pack_initrd() {
    "$kernel/usr/gen_init_cpio" -t 0 - <<END
dir /dev 755 0 0
nod /dev/console 600 0 0 c 5 1
file /init $ours/init 755 0 0
file /virtio_balloon.ko $kernel/drivers/virtio/virtio_balloon.ko 644 0 0
file /virtio_balloon_pre34.ko $ours/virtio_balloon_pre34.ko 644 0 0
END
}

build() { # GUEST
    local kernel=$work/$1 ours=$work/$1.ours
    mkdir -p "$kernel" "$ours"
    configure "$1"
    make -s -C "$kernel" -j"$(nproc)" Image modules
    build_modules
    build_init
    gzip -9n <"$kernel/arch/arm64/boot/Image" >"$ours/Image.gz"
    pack_initrd | gzip -9n >"$ours/initrd.gz"
    mv "$ours/Image.gz" "$out/$1.Image.gz"
    mv "$ours/initrd.gz" "$out/$1.initrd.gz"
    rm -rf "$kernel" "$ours"
}

mkdir -p "$out"
work=
source=
for guest; do
    if is_there "$out" "$guest"; then
        echo "$guest: is there"
    elif [[ -n ${BALLOON_GUEST_CACHE:-} ]] && is_there "$BALLOON_GUEST_CACHE" "$guest"; then
        cp "$BALLOON_GUEST_CACHE/$guest".{Image,initrd}.gz "$out/"
        echo "$guest: taken from the cache"
    else
        if [[ -z $source ]]; then
            check_tools
            work=$(mktemp -d "$out/work.XXXXXX")
            trap 'rm -rf "$work"' EXIT
            get_source
        fi
        echo "$guest: is being built"
        build "$guest"
    fi
done
