"""Memory statistics by the names that QEMU gives them, with its word for "not sent"."""

from __future__ import annotations

from typing import Any, Final

from balloon_plugin.layouts import StatTag
from balloon_plugin.status import Status

__all__ = ["NOT_SENT", "SIZES", "guest_stats", "named"]

NOT_SENT: Final = (1 << 64) - 1
"""The value of a statistic that the driver did not send; libvirt leaves such ones out.

QEMU's documentation says -1, and its clients read the same 64 bits.
"""

_NAMES: Final[dict[int, str]] = {
    StatTag.VIRTIO_BALLOON_S_SWAP_IN: "stat-swap-in",
    StatTag.VIRTIO_BALLOON_S_SWAP_OUT: "stat-swap-out",
    StatTag.VIRTIO_BALLOON_S_MAJFLT: "stat-major-faults",
    StatTag.VIRTIO_BALLOON_S_MINFLT: "stat-minor-faults",
    StatTag.VIRTIO_BALLOON_S_MEMFREE: "stat-free-memory",
    StatTag.VIRTIO_BALLOON_S_MEMTOT: "stat-total-memory",
    StatTag.VIRTIO_BALLOON_S_AVAIL: "stat-available-memory",
    StatTag.VIRTIO_BALLOON_S_CACHES: "stat-disk-caches",
    StatTag.VIRTIO_BALLOON_S_HTLB_PGALLOC: "stat-htlb-pgalloc",
    StatTag.VIRTIO_BALLOON_S_HTLB_PGFAIL: "stat-htlb-pgfail",
    StatTag.VIRTIO_BALLOON_S_OOM_KILL: "stat-oom-kills",
    StatTag.VIRTIO_BALLOON_S_ALLOC_STALL: "stat-alloc-stalls",
    StatTag.VIRTIO_BALLOON_S_ASYNC_SCAN: "stat-async-scans",
    StatTag.VIRTIO_BALLOON_S_DIRECT_SCAN: "stat-direct-scans",
    StatTag.VIRTIO_BALLOON_S_ASYNC_RECLAIM: "stat-async-reclaims",
    StatTag.VIRTIO_BALLOON_S_DIRECT_RECLAIM: "stat-direct-reclaims",
}

SIZES: Final = frozenset(
    {
        "stat-swap-in",
        "stat-swap-out",
        "stat-free-memory",
        "stat-total-memory",
        "stat-available-memory",
        "stat-disk-caches",
    }
)
"""Those that are bytes; the others are counts."""


def named(status: Status) -> dict[str, int]:
    """Return what the driver sent, in its order; tags without a name as ``tag-16``."""
    sent = status.stats.values if status.stats else ()
    return {_NAMES.get(tag, f"tag-{tag}"): value for tag, value in sent}


def guest_stats(status: Status, now: float) -> dict[str, Any]:
    """Return QEMU's property ``guest-stats``: its sixteen names, nothing else.

    :param now: the time of day, in seconds since 1970.
    """
    sent = named(status)
    updated = int(now - status.stats.age) if status.stats else 0
    stats = {name: sent.get(name, NOT_SENT) for name in _NAMES.values()}
    return {"stats": stats, "last-update": updated}
