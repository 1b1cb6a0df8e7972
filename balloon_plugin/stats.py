"""Memory statistics: what a driver puts into a statistics buffer.

Bytes in, numbers out. What a tag means is for those who show it: unknown tags are
kept, in the order sent (VIRTIO 1.3 §5.5.6.3.2: MUST ignore unknown tags and accept any
order).
"""

from __future__ import annotations

from typing import Final

from balloon_plugin.events import ByteOrder
from balloon_plugin.layouts import VIRTIO_BALLOON_STAT

__all__ = ["MAX_STATS", "parse"]

MAX_STATS: Final = 64
"""Statistics read from one buffer; what follows is ignored.

Linux 6.12 sends 16, after some years in which each release added a few: four times as
many leave room, and the largest buffer is as cheap to read as one of page numbers.
"""


def parse(data: bytes, order: ByteOrder) -> tuple[tuple[int, int], ...]:
    """Return the statistics in a buffer as (tag, value), in the order sent.

    The specification demands a multiple of 6 bytes (§5.5.6.3) while an entry has 10: an
    entry that is not complete is ignored, whatever the length.

    :param order: the guest's own on legacy (§5.5.6.3.3), little-endian with VERSION_1.
    """
    entries = min(len(data) // VIRTIO_BALLOON_STAT.size, MAX_STATS)
    whole = data[: entries * VIRTIO_BALLOON_STAT.size]
    return tuple(VIRTIO_BALLOON_STAT.of(order).iter_unpack(whole))
