"""Open a queue in the format that was negotiated: one place for all hosts.

And say of its base, which is another number in each format, what a host has to know.
"""

from __future__ import annotations

from typing import TypeAlias

from balloon_plugin.memory import GuestMemory
from balloon_plugin.virtqueue.packed import PackedQueue
from balloon_plugin.virtqueue.ring import Ring
from balloon_plugin.virtqueue.split import SplitQueue

__all__ = ["Queue", "distance", "find_base", "open_queue"]

Queue: TypeAlias = SplitQueue | PackedQueue
"""An open queue of either format."""


def open_queue(
    memory: GuestMemory,
    ring: Ring,
    base: int | None = None,
    inflight: memoryview | None = None,
) -> Queue:
    """Return the queue that a driver started; it may be broken from the start.

    :param memory: RAM, in which the queue and all its buffers are.
    :param ring: where it lies, and what was negotiated.
    :param base: where to go on, as the ``base`` of a queue before it, or as vhost-user
        has it; ``None`` for a queue that nobody has served yet.
    :param inflight: memory that outlives us, to record the buffers in flight for a
        successor, :func:`inflight_size` bytes of it, zeros or what a predecessor
        recorded; ``None`` to record nothing.
    """
    kind = PackedQueue if ring.packed else SplitQueue
    return kind(memory, ring, kind.START if base is None else base, inflight)


def find_base(
    memory: GuestMemory, ring: Ring, base: int, inflight: memoryview | None = None
) -> int:
    """Return where a queue really stands of which a front end says that it is ``base``.

    A split queue stands where it is said to: its used ring tells the front end as well.
    """
    queue = open_queue(memory, ring, base, inflight)
    found = queue.base
    queue.release()
    return found


def distance(ring: Ring, start: int, end: int) -> int:
    """Return how many buffers, of one descriptor each, are between two bases."""
    kind = PackedQueue if ring.packed else SplitQueue
    return kind.distance(ring.size, start, end)
