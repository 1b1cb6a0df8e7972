"""The buffer in which we record what is in flight ("Inflight I/O tracking").

We make it, the front end keeps it, and gives it to whoever serves the queues next. What
is recorded in it, and how, is :mod:`~balloon_plugin.virtqueue.inflight`'s.
"""

from __future__ import annotations

import os
from typing import Final

from balloon_plugin.hosts.vhost_user.files import RefusalError, Window
from balloon_plugin.hosts.vhost_user.payloads import Inflight
from balloon_plugin.hosts.vhost_user.rings import MAX_QUEUES
from balloon_plugin.layouts import VIRTQUEUE_MAX_SIZE
from balloon_plugin.virtqueue import Ring, inflight_size

__all__ = ["InflightBuffer", "make_buffer"]

_MOST: Final = MAX_QUEUES * inflight_size(VIRTQUEUE_MAX_SIZE, packed=True)
"""Bytes that the records of a balloon can have; what is beyond is left alone."""


def make_buffer(num_queues: int, queue_size: int) -> tuple[Inflight, int]:
    """Return a new buffer for so many queues of that many entries: zeros, in a file.

    There is room for packed rings, which need more: what the rings are is not known
    yet. The file descriptor is the caller's to close.

    :raises RefusalError: if there is no room for it.
    """
    size = num_queues * inflight_size(queue_size, packed=True)
    try:
        fd = os.memfd_create("inflight")
    except OSError as error:
        raise RefusalError(f"no buffer for what is in flight: {error}") from error
    os.ftruncate(fd, size)
    return Inflight(size, 0, num_queues, queue_size), fd


class InflightBuffer:
    """The buffer of one front end; without one, nothing is recorded."""

    def __init__(self) -> None:
        self._window: Window | None = None
        self._described = Inflight(0, 0, 0, 0)

    @property
    def torn(self) -> bool:
        """Whether the front end took the buffer away."""
        return self._window is not None and self._window.torn

    def replace(self, described: Inflight, fd: int) -> None:
        """Record in another buffer from now on; the descriptor stays the caller's.

        No queue runs meanwhile.

        :raises RefusalError: if it cannot be done.
        """
        described = described._replace(size=min(described.size, _MOST))
        window = Window(fd, described.offset, described.size, "an inflight buffer")
        self.close()
        self._window, self._described = window, described

    def record(self, index: int, ring: Ring) -> memoryview | None:
        """Return where a queue's buffers are recorded, or ``None`` if they are not.

        :raises RefusalError: if the buffer has no room for that.
        """
        described = self._described
        if self._window is None or index >= described.num_queues:
            return None
        size = inflight_size(described.queue_size, packed=ring.packed)
        start, end = index * size, (index + 1) * size
        if ring.size > described.queue_size or end > described.size:
            raise RefusalError(
                f"the inflight buffer has no room for queue {index} of {ring.size} "
                "entries"
            )
        return self._window.view[start:end]

    def forget(self) -> None:
        """Record anew: another driver's buffers are not those in flight."""
        if self._window is not None:
            self._window.view[:] = bytes(len(self._window.view))

    def close(self) -> None:
        """Let go of the buffer, and leave what is in it to a successor."""
        if self._window is not None:
            self._window.close()
            self._window = None
