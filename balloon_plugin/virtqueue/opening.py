"""Open a queue in the format that was negotiated: one place for all hosts."""

from __future__ import annotations

from typing import TypeAlias

from balloon_plugin.memory import GuestMemory
from balloon_plugin.virtqueue.packed import PackedQueue
from balloon_plugin.virtqueue.ring import Ring
from balloon_plugin.virtqueue.split import SplitQueue

__all__ = ["Queue", "open_queue"]

Queue: TypeAlias = SplitQueue | PackedQueue
"""An open queue of either format."""


def open_queue(memory: GuestMemory, ring: Ring, base: int | None = None) -> Queue:
    """Return the queue that a driver started; it may be broken from the start.

    :param memory: RAM, in which the queue and all its buffers are.
    :param ring: where it lies, and what was negotiated.
    :param base: where to go on, as the ``base`` of a queue before it, or as vhost-user
        has it; ``None`` for a queue that nobody has served yet.
    """
    kind = PackedQueue if ring.packed else SplitQueue
    return kind(memory, ring, kind.START if base is None else base)
