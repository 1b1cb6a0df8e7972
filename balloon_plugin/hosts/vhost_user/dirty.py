"""What we change in guest memory while the guest migrates: a log, a bit for each page.

The log is a file that the front end shares, with other back ends too, and all of them
set bits at once. Python cannot set a bit atomically; but it can store a byte. So all
eight pages of a byte are marked together: seven too many cost a copy of each, one too
few would be memory that is wrong on the other machine.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

from balloon_plugin.hosts.nets import Net
from balloon_plugin.hosts.vhost_user import doorbells
from balloon_plugin.hosts.vhost_user.mapping import RefusalError, map_shared
from balloon_plugin.hosts.vhost_user.payloads import Log
from balloon_plugin.layouts import PAGE_SIZE

__all__ = ["DirtyLog"]

_STRETCH: Final = 8 * PAGE_SIZE
"""Bytes of guest memory behind one byte of the log; ``VHOST_LOG_PAGE`` is 4 KiB."""


class DirtyLog:
    """The log of one front end; without one, nothing is marked.

    :ivar discards: whether pages that are given back are to be marked.
    """

    def __init__(self) -> None:
        self.discards = False
        self._mapping: mmap.mmap | None = None
        self._net: Net | None = None
        self._at = self._size = 0
        self._notifier: int | None = None

    @property
    def active(self) -> bool:
        """Whether there is a log."""
        return self._mapping is not None

    @property
    def torn(self) -> bool:
        """Whether the front end took the log away."""
        return self._net is not None and self._net.torn

    def replace(self, log: Log, fd: int) -> None:
        """Mark pages in another file from now on; the descriptor stays the caller's.

        :raises RefusalError: if it cannot be done.
        """
        start = log.offset // mmap.PAGESIZE * mmap.PAGESIZE
        end = log.offset + log.size
        if not log.size or end > os.fstat(fd).st_size:
            raise RefusalError(f"a log of {log.size:#x} bytes is not in its file")
        mapping = map_shared(fd, end - start, start)
        self._unmap()
        self._mapping, self._net = mapping, Net(mapping, mmap.PAGESIZE)
        self._at, self._size = log.offset - start, log.size

    def set_notifier(self, fd: int) -> None:
        """Tell a file descriptor, which is ours now, when something was marked.

        :raises OSError: if it is of no use; it stays the caller's.
        """
        doorbells.check(fd)
        self._drop_notifier()
        self._notifier = fd

    def mark(self, address: int, size: int) -> None:
        """Mark the pages of a range of guest-physical addresses, and some beside."""
        if self._mapping is None:
            return
        first = address // _STRETCH
        end = min(-(-(address + size) // _STRETCH), self._size)
        if first < end:
            stretch = b"\xff" * (end - first)
            self._mapping[self._at + first : self._at + end] = stretch
            if self._notifier is not None:
                doorbells.post(self._notifier)

    def close(self) -> None:
        """Let go of everything that the front end gave."""
        self._unmap()
        self._drop_notifier()
        self.discards = False

    def _unmap(self) -> None:
        if self._mapping is not None and self._net is not None:
            self._mapping.close()
            self._net.close()
            self._mapping = self._net = None

    def _drop_notifier(self) -> None:
        if self._notifier is not None:
            os.close(self._notifier)
            self._notifier = None
