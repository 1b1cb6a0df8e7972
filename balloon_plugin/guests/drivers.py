"""How the drivers that there are behave, each with the source where that was read.

``VB`` is ``drivers/virtio/virtio_balloon.c``; a path without a repository is in Linus
Torvalds's tree at that version. A row says what is special about a driver; a later one
of the same family says in what it differs from the one before.

Two facts decide what a host can conclude from accepted features. A driver accepts every
feature that it knows. And INDIRECT_DESC came with v2.6.31-rc1 (9fa29b9df32b,
2009-05-11), so that a kernel which accepts it is none of 2.6.25 to 2.6.30; drivers
other than Linux's need not accept it. EVENT_IDX is known from 3.0 on (and in RHEL 6.8),
RING_PACKED from 5.0 on; which of them the others know was not read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from balloon_plugin.guests.traits import (
    DriverProfile,
    Engine,
    Lie,
    Order,
    PfnForm,
    Start,
)
from balloon_plugin.layouts import Feature

__all__ = ["DRIVERS"]


def _mask(*features: Feature) -> int:
    return sum(feature.mask for feature in features)


_TELL: Final = _mask(Feature.VIRTIO_BALLOON_F_MUST_TELL_HOST)
_STATS: Final = _mask(Feature.VIRTIO_BALLOON_F_STATS_VQ)
_OOM: Final = _mask(Feature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM)
_INDIRECT: Final = _mask(Feature.VIRTIO_RING_F_INDIRECT_DESC)
_EVENT_IDX: Final = _mask(Feature.VIRTIO_RING_F_EVENT_IDX)
_VERSION_1: Final = _mask(Feature.VIRTIO_F_VERSION_1)
_PACKED: Final = _mask(Feature.VIRTIO_F_RING_PACKED)
_ALL: Final = _mask(
    Feature.VIRTIO_BALLOON_F_FREE_PAGE_HINT,
    Feature.VIRTIO_BALLOON_F_PAGE_POISON,
    Feature.VIRTIO_BALLOON_F_REPORTING,
)

# --- Linux before 3.4 ---------------------------------------------------------------

_LINUX_2_6_25: Final = DriverProfile(
    # __virtio_config_val() swaps for the driver: no endian bug yet. The page's own
    # number is sent. "return v - vb->num_pages" is computed in u32.
    source="v2.6.25 VB, include/linux/virtio_config.h: comio/linux-2.6.25-cf547x",
    engine=Engine.KTHREAD,
    features=_TELL,
    early_start=True,
    idle_writes=True,
    primes_stats=False,
    pfn_form=PfnForm.UNSHIFTED,
    counts_guest_pages=True,
    unsigned_diff=True,
    release_before_tell=True,  # VB:148-154
    zero_on_remove=False,
    has_freeze=False,
)

_LINUX_2_6_26: Final = replace(
    _LINUX_2_6_25,
    # 72e61eb40b55 "virtio: change config to guest endian": the macro became a plain
    # get. The write of actual kept its cpu_to_le32.
    source="v2.6.26 VB: comio/linux-2.6.25-cf547x",
    target_order=Order.NATIVE,
)

_LINUX_2_6_27: Final = replace(
    _LINUX_2_6_26,
    source="v2.6.27, v2.6.28 VB (532a6086e353): comio/linux-2.6.25-cf547x",
    unsigned_diff=False,
)

_LINUX_2_6_29: Final = replace(
    _LINUX_2_6_27,
    # 1b4aa2faeca1 "avoid implicit use of Linux page size in balloon interface".
    source="v2.6.29, v2.6.30 VB:59-66,124-155: comio/linux-2.6.25-cf547x",
    pfn_form=PfnForm.WRONG_SHIFT,
    frees_by_wire=True,
)

_LINUX_2_6_32: Final = replace(
    _LINUX_2_6_29,
    source="2.6.32.2: zybsyzlz/linux-2.6.32@ec78931d VB:59-66,124-202",
    features=_TELL | _INDIRECT,
)

_LINUX_3_2: Final = replace(
    _LINUX_2_6_32,
    source="3.2.7: me-oss/86-linux-3.2.7@1ee821c2 VB; 3.2.71, 3.0.101 alike",
    features=_TELL | _STATS | _INDIRECT | _EVENT_IDX,
    release_before_tell=False,
)

_LINUX_3_3: Final = replace(
    _LINUX_3_2,
    source="3.3.8: ciminaghi/linux-3.3.8@72877bd7 VB:129,139,350",
    has_freeze=True,
)

_RHEL_6_5: Final = replace(
    _LINUX_2_6_32,
    source="2.6.32-431.29.2: raceli/rhel6-kernel@2cf739d1 VB:69,134",
    features=_TELL | _STATS | _INDIRECT,
    zero_on_remove=True,  # from -358
    has_freeze=True,  # from -279
)

_RHEL_6_6: Final = replace(
    _RHEL_6_5,
    # Both fixes, of a kernel that calls itself 2.6.32: the version classifies nothing.
    source="2.6.32-504: raceli/rhel6-kernel@ae81fe93; functor/linux-2.6.32-642.6.2.el6",
    target_order=Order.LITTLE,
    pfn_form=PfnForm.RIGHT,
    counts_guest_pages=False,
    frees_by_wire=False,
)

# --- Linux from 3.4 on --------------------------------------------------------------

_LINUX_3_4: Final = DriverProfile(
    source="3.4.4: prtos-project/prtos-linux-3.4.4@6365da96 VB, VB:384-396; 3.4.113",
    engine=Engine.KTHREAD,
    features=_TELL | _STATS | _INDIRECT | _EVENT_IDX,
    early_start=True,
    idle_writes=True,
    primes_stats=False,
)

_LINUX_3_8: Final = replace(
    _LINUX_3_4,
    source="3.19.12 VB:420-461 has what 3.8 began with, balloon compaction",
    compacts=True,
)

_LINUX_3_19: Final = replace(
    _LINUX_3_8,
    # With VERSION_1 virtio_cread converts, and then the driver does it again.
    source="3.19.12: edelweiss-tech/bt1-linux-3.19@f353b7b3 VB:284-301",
    features=_TELL | _STATS | _OOM | _INDIRECT | _EVENT_IDX | _VERSION_1,
    config_order_v1=Order.NATIVE,
    pfn_order_v1=Order.NATIVE,
)

_LINUX_4_1: Final = replace(
    _LINUX_3_19,
    # df81b29c7b81 put configuration right; page numbers followed in 4.7 (87c9403b0d1d).
    source="4.1.3: fsl-jyt@7f8506ec VB:128-136; 4.4.1: zanpocc@d4321c96",
    early_start=False,
    config_order_v1=Order.LITTLE,
)

_LINUX_4_6: Final = replace(
    _LINUX_4_1,
    # fad7b7b27b6a: kthread to workqueue, and no look at the target in the probe.
    source="4.6.2: xing393939@857de4c2 VB:491 ff.",
    engine=Engine.WORKQUEUE,
    start=Start.BLIND,
)

_LINUX_4_7: Final = replace(
    _LINUX_4_6,
    source="87c9403b0d1d is in 4.7, 8424af5336b3 is not in 4.6.2 and is in 4.10",
    pfn_order_v1=Order.LITTLE,
)

_LINUX_4_8: Final = replace(
    _LINUX_4_7,
    source="4.10: latelee/linux-4.10; 4.18.0-240.el8: dongzhiyan-stack@1369c8fa",
    start=Start.ACTS,
)

_LINUX_4_19: Final = replace(
    _LINUX_4_8,
    source="4.19: 0x88888888@bac950f29 VB",
    primes_stats=True,
)

_LINUX_5_8: Final = replace(
    _LINUX_4_19,
    source="5.8.18: SOMINIUM@76801238d VB; 6.1-rc3: Rtoax@9da387e9 alike",
    features=_TELL
    | _STATS
    | _OOM
    | _INDIRECT
    | _EVENT_IDX
    | _VERSION_1
    | _PACKED
    | _ALL,
    idle_writes=False,
)

_LINUX_6_12: Final = replace(
    _LINUX_5_8,
    source="6.12.117: Debian linux-source-6.12 VB:474-479,1037,1107-1177",
    aligns_target=True,
)

# --- others -------------------------------------------------------------------------

_WINDOWS: Final = DriverProfile(
    # PFN_NUMBER has 8 bytes on x64, a page of them is a request, and what was allocated
    # for one request is freed for one. A request without enough memory is dropped.
    source="virtio-win/kvm-guest-drivers-windows@f311c49b Balloon/sys/balloon.c",
    engine=Engine.EVENT,
    features=_STATS | _VERSION_1,
    idle_writes=True,
    pfn_size=8,
    release_before_tell=True,
    whole_batches=True,
    batch=512,
    all_or_nothing=True,
    retry=0.0,
    has_freeze=False,
)

_FREEBSD: Final = DriverProfile(
    # Page numbers are the CPU's, whatever was negotiated (vtballoon_inflate).
    source="freebsd/freebsd-src@0360e293 sys/dev/virtio/balloon/virtio_balloon.c",
    engine=Engine.KTHREAD,
    features=_TELL | _VERSION_1,
    early_start=True,
    pfn_order_v1=Order.NATIVE,
    fifo=True,
    retry=1.0,
    sends_first=True,
    zero_on_remove=False,
    has_freeze=False,
)

_OPENBSD: Final = DriverProfile(
    source="openbsd/src@040fedc0 sys/dev/pv/viomb.c",
    engine=Engine.TASK,
    start=Start.READS,
    features=_TELL,
    asks_device=True,
    actual_order=Order.NATIVE,
    fifo=True,
    all_or_nothing=True,
    fails_silently=True,
    retry=0.0,
    removable=False,
    has_freeze=False,
)

_NETBSD: Final = replace(
    _OPENBSD,
    # virtio_enqueue() sends the whole DMA map, 256 entries, however many are new: the
    # others are zero, or page numbers of earlier requests in either direction.
    source="NetBSD/src@054e3b4d sys/dev/pci/viomb.c; virtio.c: virtio_enqueue",
    engine=Engine.KTHREAD,
    start=Start.ACTS,
    features=0,
    full_buffers=True,
    retry=10.0,
    pause=1.0,
)

_VIOMB_BIG: Final = replace(
    _OPENBSD,
    source="openbsd/src@040fedc0 sys/dev/pv/viomb.c: virtio_write_device_config_4",
    asks_device=False,
)

_MACOS: Final = DriverProfile(
    source="notes on AppleVirtIOBalloon of macOS 26.4: aquarat/qemu-reims-vgpu",
    engine=Engine.APPLE,
    start=Start.BLIND,
    features=_TELL | _STATS | _INDIRECT | _VERSION_1,
    writes_actual=False,
    counts_guest_pages=True,
    batch=4096,
    removable=False,
    has_freeze=False,
)

_LIAR: Final = replace(
    _LINUX_3_4,
    source="made up: a guest that means harm",
    lie=Lie.PLAIN,
)

_PERFECT_LIAR: Final = replace(_LIAR, lie=Lie.PERFECT)

_ABSENT: Final = DriverProfile(
    source="real guests with drv=none: not even features are accepted",
    engine=Engine.ABSENT,
)

DRIVERS: Final = {
    "linux-2.6.25": _LINUX_2_6_25,
    "linux-2.6.26": _LINUX_2_6_26,
    "linux-2.6.27": _LINUX_2_6_27,
    "linux-2.6.29": _LINUX_2_6_29,
    "linux-2.6.32": _LINUX_2_6_32,
    "linux-3.2": _LINUX_3_2,
    "linux-3.3": _LINUX_3_3,
    "rhel-6.5": _RHEL_6_5,
    "rhel-6.6": _RHEL_6_6,
    "linux-3.4": _LINUX_3_4,
    "linux-3.8": _LINUX_3_8,
    "linux-3.19": _LINUX_3_19,
    "linux-4.1": _LINUX_4_1,
    "linux-4.6": _LINUX_4_6,
    "linux-4.7": _LINUX_4_7,
    "linux-4.8": _LINUX_4_8,
    "linux-4.19": _LINUX_4_19,
    "linux-5.8": _LINUX_5_8,
    "linux-6.12": _LINUX_6_12,
    "windows": _WINDOWS,
    "freebsd": _FREEBSD,
    "openbsd": _OPENBSD,
    "netbsd": _NETBSD,
    "viomb-big": _VIOMB_BIG,
    "macos": _MACOS,
    "liar": _LIAR,
    "perfect-liar": _PERFECT_LIAR,
    "absent": _ABSENT,
}
"""Every driver by its name."""
