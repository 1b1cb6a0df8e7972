"""The guest's root file system: busybox, modules, and a script that obeys commands.

The script speaks the language of :mod:`~balloon_plugin.boot.guest`, and knows one more
command: ``use MIB`` writes to memory and frees it, in a single process, because here a
new one takes ten milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from balloon_plugin.boot import initramfs
from balloon_plugin.boot.initramfs import Entry
from balloon_plugin.boot.modules import Module

__all__ = ["root_files"]


def root_files(
    busybox: bytes, modules: Sequence[Module], built_in: str = ""
) -> list[Entry]:
    """Return the guest's whole root file system.

    :param busybox: the program, linked statically; its applets are called by name.
    :param modules: in order of loading. All but the last are loaded at boot, the last
        one, which is the driver, is left for the command ``insmod``.
    :param built_in: the driver, if it is in the kernel: it has to let go of its device
        at boot, and takes it again with ``insmod``.
    """
    first = modules if built_in else modules[:-1]
    at_boot = "".join(f"{module.name}\n" for module in first)
    return [
        initramfs.console(),
        *(initramfs.directory(name) for name in ("memory", "proc", "sys")),
        initramfs.file("init", _INIT, executable=True),
        initramfs.file("bin/busybox", busybox, executable=True),
        initramfs.file("modules/order", at_boot.encode()),
        initramfs.file("modules/built-in", f"{built_in}\n".encode()),
        *(initramfs.file(f"modules/{m.name}.ko", m.data) for m in modules),
    ]


_INIT: Final = rb"""#!/bin/busybox sh
bb=/bin/busybox
drivers=/sys/bus/virtio/drivers

# Memory is held as files of 4 MiB, all with the content of the first: a page that was
# lost reads as zeros. What cannot be compared as a whole counts as lost.
alloc() {
    pieces=$(($1 / 4))
    while [ "$pieces" -gt 0 ]; do
        pieces=$((pieces - 1)) blocks=$((blocks + 1))
        $bb cp /memory/pattern "/memory/block$blocks" || {
            echo "GUEST alloc $1 failed"
            return
        }
    done
    echo "GUEST alloc $1 ok"
}

check() {
    kept=$($bb md5sum /memory/block* | $bb grep -c "^${pattern%% *}")
    echo " check=$((kept * 1024))/$(((blocks - kept) * 1024))"
}

# Write to memory and free it at once, so that the host has to have it.
use() {
    used=ok
    $bb dd if=/dev/zero of=/memory/used bs=64k count=$(($1 * 16)) 2>/dev/null ||
        used=failed
    $bb rm /memory/used
    echo "GUEST use $1 $used"
}

# One process for all numbers: here a new one takes ten milliseconds.
status() {
    tail=
    [ "$blocks" -gt 0 ] && tail=$(check)
    $bb awk -v tail="$tail" '
        FILENAME == "/proc/uptime" { up = $1 }
        { value[$1] = $2 }
        END {
            printf "GUEST up=%s MemTotal=%d MemFree=%d MemAvailable=%d infl=%d/%d%s\n",
                up, value["MemTotal:"], value["MemFree:"], value["MemAvailable:"],
                value["balloon_inflate"], value["balloon_deflate"], tail
        }' /proc/uptime /proc/meminfo /proc/vmstat
}

# A driver that is in the kernel had its device before there was an init.
let_go() {
    read -r built_in </modules/built-in
    [ "$built_in" ] || return
    for its in "$drivers/$built_in"/virtio*; do
        [ -e "$its" ] && built_on=${its##*/} &&
            echo "$built_on" >"$drivers/$built_in/unbind"
    done
}

load() {
    if [ "$1" = "$built_in" ]; then
        echo "$built_on" >"$drivers/$1/bind"
    else
        $bb insmod "/modules/$1.ko" $2
    fi
    echo "GUEST insmod $1 \"$2\" -> $?"
}

device() {
    link=$($bb readlink /sys/bus/virtio/devices/virtio0/driver)
    link=${link##*/}
    echo "GUEST virtio0 driver=${link:--}"
}

obey() {
    case $1 in
    insmod) load "$2" "$3"; device ;;
    rmmod) $bb rmmod "$2"; echo "GUEST rmmod $2 -> $?"; device ;;
    alloc) alloc "$2" ;;
    free) $bb rm -f /memory/block*; blocks=0; echo "GUEST free ok" ;;
    use) use "$2" ;;
    device) device ;;
    reboot) echo "GUEST reboot"; exec $bb reboot -f ;;
    poweroff) echo "GUEST poweroff"; exec $bb poweroff -f ;;
    *) echo "GUEST unknown command $1" ;;
    esac
}

$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
$bb mount -t devtmpfs dev /dev
$bb mount -t tmpfs -o size=100% memory /memory
$bb stty -echo
$bb dd if=/dev/urandom of=/memory/pattern bs=1M count=4 2>/dev/null
pattern=$($bb md5sum </memory/pattern)
blocks=0
while read -r module; do
    $bb insmod "/modules/$module.ko"
done </modules/order
let_go
read -r version </proc/version
echo "GUEST $version"
read -r up rest </proc/uptime
echo "GUEST ready up=$up"
status

while read -r command first rest; do
    obey "$command" "$first" "$rest"
    status
done
# Nobody is there any more.
exec $bb poweroff -f
"""
