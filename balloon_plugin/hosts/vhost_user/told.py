"""A queue whose buffers are told of before they are returned.

The driver goes on the moment that it has a buffer back. What a daemon must remember of
that buffer, should it die, has to be written down before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from balloon_plugin.events import ByteOrder
from balloon_plugin.hookspecs import VirtQueue
from balloon_plugin.virtqueue import Chain

__all__ = ["Told"]


class Told:
    """A :class:`~balloon_plugin.hookspecs.VirtQueue` around another one.

    :param queue: the queue.
    :param tell: is told how many buffers are about to be returned; if it raises, none
        is.
    """

    def __init__(self, queue: VirtQueue, tell: Callable[[int], None]) -> None:
        self._queue = queue
        self._tell = tell

    @property
    def byte_order(self) -> ByteOrder:
        """Byte order of page numbers."""
        return self._queue.byte_order

    @property
    def desc(self) -> int:
        """Guest-physical address of the descriptors."""
        return self._queue.desc

    @property
    def broken(self) -> str | None:
        """Why the ring itself is lost, or ``None``."""
        return self._queue.broken

    def pop(self, limit: int) -> list[Chain]:
        """Take up to ``limit`` available chains, in order."""
        return self._queue.pop(limit)

    def push(self, chains: Sequence[Chain]) -> bool:
        """Tell of chains, then return them; return whether the driver is notified."""
        self._tell(len(chains))
        return self._queue.push(chains)
