"""A queue that tells before buffers are returned, and when its ring was written to.

The driver goes on the moment that it has a buffer back. What a daemon must remember of
that buffer, should it die, has to be written down before. What is written to a ring
while the guest migrates has to be marked after.
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
    :param before: is told how many buffers are about to be returned; if it raises, none
        is.
    :param after: is told that the ring may have been written to.
    """

    def __init__(
        self,
        queue: VirtQueue,
        before: Callable[[int], None],
        after: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._before = before
        self._after = after

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
        chains = self._queue.pop(limit)
        self._after()
        return chains

    def push(self, chains: Sequence[Chain]) -> bool:
        """Tell of chains, then return them; return whether the driver is notified."""
        self._before(len(chains))
        wanted = self._queue.push(chains)
        self._after()
        return wanted
