"""The guests that there are, each with the truth about it, one row each.

A name says the kernel, the byte order and the page size; ``v1`` in a big-endian one
that VERSION_1 is negotiated. To add a guest add a row, and a driver to
:mod:`~balloon_plugin.guests.drivers` if its kernel is not there yet.

The truth is GOOD where the driver is safe to believe as it is, and BUGGY where it has a
defect that makes it unsafe, or its balloon or its ``actual`` of no use, untreated. To
need a config interrupt is a defect, and harmless: a device sends one anyway.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Final

from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder, Defect, Judgement
from balloon_plugin.guests.access import Access
from balloon_plugin.guests.drivers import DRIVERS
from balloon_plugin.guests.traits import GuestProfile

__all__ = ["GUESTS", "find"]

_GOOD, _BUGGY = Judgement.GOOD, Judgement.BUGGY
_TARGET, _ACTUAL = Defect.ENDIAN_TARGET, Defect.ACTUAL_ORDER
_PFN, _SHIFT, _UNITS = Defect.PFN_ORDER, Defect.PAGE_SHIFT, Defect.PAGE_UNITS
_NO_DEFLATE, _IRQ = Defect.NO_DEFLATE, Defect.NEEDS_CONFIG_IRQ

_MODERN: Final[dict[str, Any]] = {"modern": True, "access": Access.WORD}
"""PCI and MMIO from VIRTIO 1.0 on; what has no bus here is on a legacy one."""

_CHANNEL: Final[dict[str, Any]] = {"modern": True, "access": Access.CHANNEL}
"""The channel I/O of s390x, where VERSION_1 came first (3.19)."""

_AARCH64: Final[dict[str, Any]] = _MODERN | {"ram_start": 0x4000_0000}
"""Where RAM of the machine "virt" begins; on PCs, pseries and s390x it is 0."""

_LOST: Final[dict[str, Any]] = {
    "unusable": "the wrong shift drops bits of each page number, so no host can tell "
    "which pages were taken; and the driver frees wrong pages when it deflates"
}
_ONE_WAY: Final[dict[str, Any]] = {
    "unusable": "the driver takes a target below its balloon's size for a huge one, so "
    "that nothing makes it deflate"
}
_MALICE: Final[dict[str, Any]] = {"unusable": "the driver names pages that it is using"}

_ORDERS = {"le": ByteOrder.LITTLE, "be": ByteOrder.BIG}


def _guest(
    name: str,
    driver: str,
    truth: Judgement,
    *defects: Defect,
    **more: Any,
) -> GuestProfile:
    """Make a row; byte order and page size are in the name."""
    _, order, size = name.rsplit("-", 2)
    return GuestProfile(
        name=name,
        driver=DRIVERS[driver],
        byte_order=_ORDERS[order],
        page_size=int(size.removesuffix("k")) << 10,
        truth=truth,
        defects=defects,
        **more,
    )


_OLD: Final = (
    _guest("linux-2.6.25-le-4k", "linux-2.6.25", _BUGGY, _NO_DEFLATE, **_ONE_WAY),
    _guest("linux-2.6.25-be-4k", "linux-2.6.25", _BUGGY, _NO_DEFLATE, **_ONE_WAY),
    _guest(
        "linux-2.6.25-be-64k",
        "linux-2.6.25",
        *(_BUGGY, _UNITS, _NO_DEFLATE),
        **_ONE_WAY,
    ),
    _guest("linux-2.6.26-le-4k", "linux-2.6.26", _BUGGY, _NO_DEFLATE, **_ONE_WAY),
    _guest(
        "linux-2.6.26-be-4k",
        "linux-2.6.26",
        *(_BUGGY, _TARGET, _NO_DEFLATE),
        **_ONE_WAY,
    ),
    _guest(
        "linux-2.6.26-be-64k",
        "linux-2.6.26",
        *(_BUGGY, _TARGET, _UNITS, _NO_DEFLATE),
        **_ONE_WAY,
    ),
    # On pages of 4 KiB all shifts are by 0, and raw little-endian is right.
    _guest("linux-2.6.27-le-4k", "linux-2.6.27", _GOOD),
    _guest("linux-2.6.27-le-64k", "linux-2.6.27", _BUGGY, _UNITS),  # ia64
    _guest("linux-2.6.27-be-4k", "linux-2.6.27", _BUGGY, _TARGET),
    _guest("linux-2.6.27-be-64k", "linux-2.6.27", _BUGGY, _TARGET, _UNITS),
    _guest("linux-2.6.29-le-16k", "linux-2.6.29", _BUGGY, _SHIFT, **_LOST),  # ia64
    _guest("linux-2.6.29-be-64k", "linux-2.6.29", _BUGGY, _TARGET, _SHIFT, **_LOST),
    # Ubuntu 10.04 powerpc64-smp; Debian 6
    _guest("linux-2.6.32-be-4k", "linux-2.6.32", _BUGGY, _TARGET),
    _guest("linux-2.6.32-be-64k", "linux-2.6.32", _BUGGY, _TARGET, _SHIFT, **_LOST),
    _guest("rhel-6.5-le-4k", "rhel-6.5", _GOOD),
    _guest("rhel-6.5-be-64k", "rhel-6.5", _BUGGY, _TARGET, _SHIFT, **_LOST),
    _guest("rhel-6.6-be-64k", "rhel-6.6", _GOOD),
    _guest(
        "ubuntu-12.04-be-4k",
        "linux-3.2",
        *(_BUGGY, _TARGET),
        second_hand="that CONFIG_VIRTIO_BALLOON is set was not read",
    ),
    _guest(
        "sles-11-be-64k",
        "linux-3.2",
        *(_BUGGY, _TARGET, _SHIFT),
        **_LOST,
        second_hand="whether SUSE patched the driver of 3.0.101 was not found out",
    ),
    _guest("linux-3.3-le-4k", "linux-3.3", _GOOD),
    # ia64 and little-endian MIPS; all others began after 3.4
    _guest("linux-3.3-le-16k", "linux-3.3", _BUGGY, _SHIFT, **_LOST),
    _guest("linux-3.3-le-64k", "linux-3.3", _BUGGY, _SHIFT, **_LOST),
    _guest("linux-3.3-be-4k", "linux-3.3", _BUGGY, _TARGET),
    _guest("linux-3.3-be-64k", "linux-3.3", _BUGGY, _TARGET, _SHIFT, **_LOST),
)
"""Linux before 3.4, and RHEL 6 with it."""

_V1_PFN = (_BUGGY, _PFN)
_V1_ALL = (_BUGGY, _TARGET, _ACTUAL, _PFN)

_NEW: Final = (
    _guest("linux-3.4-le-4k", "linux-3.4", _GOOD),
    _guest("linux-3.4-be-4k", "linux-3.4", _GOOD),
    _guest("linux-3.4-be-8k", "linux-3.4", _GOOD),  # sparc64
    _guest("linux-3.4-be-16k", "linux-3.4", _GOOD),  # MIPS
    _guest("linux-3.4-be-64k", "linux-3.4", _GOOD),
    _guest("linux-3.4-be-256k", "linux-3.4", _GOOD),  # PPC44x
    _guest("linux-3.16-be-64k", "linux-3.8", _GOOD),  # openSUSE, not SLES
    _guest("linux-3.19-be-64k", "linux-3.19", _GOOD),
    _guest("linux-3.19-v1-be-4k", "linux-3.19", *_V1_ALL, **_CHANNEL),
    _guest(
        "linux-4.0-v1-be-64k",
        "linux-3.19",
        *_V1_ALL,
        **_MODERN,
        second_hand="4.0 was not read; the fix is dated after it",
    ),
    _guest("linux-4.4-le-4k", "linux-4.1", _GOOD, **_MODERN),
    _guest("linux-4.4-le-64k", "linux-4.1", _GOOD, **_AARCH64),
    _guest("linux-4.4-be-64k", "linux-4.1", _GOOD),
    _guest("linux-4.4-v1-be-4k", "linux-4.1", *_V1_PFN, **_CHANNEL),
    _guest("linux-4.4-v1-be-64k", "linux-4.1", *_V1_PFN, **_MODERN),
    _guest("linux-4.6-le-4k", "linux-4.6", _GOOD, _IRQ, **_MODERN),
    _guest("linux-4.6-be-4k", "linux-4.6", _GOOD, _IRQ),
    _guest("linux-4.6-v1-be-4k", "linux-4.6", *_V1_PFN, _IRQ, **_CHANNEL),
    _guest("linux-4.6-v1-be-64k", "linux-4.6", *_V1_PFN, _IRQ, **_MODERN),
    _guest(
        "linux-4.7-v1-be-4k",
        "linux-4.7",
        *(_GOOD, _IRQ),
        **_CHANNEL,
        second_hand="4.7 was not read; one fix is dated before it, one after",
    ),
    _guest("linux-4.10-be-64k", "linux-4.8", _GOOD),
    _guest("linux-4.10-v1-be-64k", "linux-4.8", _GOOD, **_MODERN),
    _guest("linux-4.19-be-8k", "linux-4.19", _GOOD),
    _guest("linux-4.19-v1-be-64k", "linux-4.19", _GOOD, **_MODERN),
    _guest("linux-5.8-le-4k", "linux-5.8", _GOOD, **_MODERN),
    _guest("linux-5.8-v1-be-4k", "linux-5.8", _GOOD, **_CHANNEL),
    _guest("linux-6.1-le-4k", "linux-5.8", _GOOD, **_MODERN),
    _guest("linux-6.1-le-64k", "linux-5.8", _GOOD, **_AARCH64),
    _guest("linux-6.1-be-256k", "linux-5.8", _GOOD),
    _guest("linux-6.1-v1-be-64k", "linux-5.8", _GOOD, **_MODERN),
    _guest("linux-6.12-le-4k", "linux-6.12", _GOOD, **_MODERN),
    _guest("linux-6.12-le-16k", "linux-6.12", _GOOD, **_AARCH64),
    _guest("linux-6.12-le-64k", "linux-6.12", _GOOD, **_AARCH64),
    _guest("linux-6.12-be-256k", "linux-6.12", _GOOD),
    _guest("linux-6.12-v1-be-4k", "linux-6.12", _GOOD, **_CHANNEL),
)
"""Linux from 3.4 on."""

_OTHERS: Final = (
    _guest("windows-le-4k", "windows", _BUGGY, Defect.PFN_WIDTH),
    _guest(
        "windows-v1-le-4k",
        "windows",
        *(_BUGGY, Defect.PFN_WIDTH),
        **_MODERN,
        second_hand="which ring features it accepts was not read",
    ),
    _guest("freebsd-le-4k", "freebsd", _GOOD, **_MODERN),
    _guest("freebsd-be-4k", "freebsd", _GOOD),
    _guest("freebsd-v1-be-4k", "freebsd", _BUGGY, _PFN, **_MODERN),
    _guest("openbsd-le-4k", "openbsd", _GOOD, _IRQ),
    _guest(
        "viomb-be-4k",
        "viomb-big",
        *(_BUGGY, _ACTUAL, _IRQ),
        second_hand="whether buses of such machines swap what is read and written, and "
        "so what it reads back as its size, was not found out",
    ),
    _guest("netbsd-le-4k", "netbsd", _BUGGY, Defect.STALE_ENTRIES),
    _guest(
        "macos-le-16k",
        "macos",
        *(_BUGGY, Defect.UNIT_SCALE, Defect.NO_ACTUAL, _IRQ),
        **_AARCH64,
        second_hand="all of it, from notes of others on its disassembly and traces",
    ),
    _guest("liar-be-4k", "liar", _BUGGY, **_MALICE),
    _guest("liar-le-4k", "liar", _BUGGY, **_MALICE),
    _guest("perfect-liar-be-4k", "perfect-liar", _BUGGY, **_MALICE),
    _guest("perfect-liar-le-4k", "perfect-liar", _BUGGY, **_MALICE),
)
"""Other systems, and guests that mean harm."""

_NOBODY: Final = GuestProfile(
    name="no-driver",
    driver=DRIVERS["absent"],
    byte_order=ByteOrder.LITTLE,
    page_size=4 << 10,
    truth=Judgement.UNDECIDED,
    unusable="there is no driver",
)

GUESTS: Final = {guest.name: guest for guest in (*_OLD, *_NEW, *_OTHERS, _NOBODY)}
"""Every guest by its name."""


def find(name: str) -> GuestProfile:
    """Return the guest of this name.

    :raises HostError: with a name that is near, if there is no such guest.
    """
    if name in GUESTS:
        return GUESTS[name]
    near = get_close_matches(name, GUESTS, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise HostError(
        f"there is no guest {name!r}; {hint}'balloon-plugin compare --guests' lists all"
    )
