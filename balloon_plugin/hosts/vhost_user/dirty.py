"""What we change in guest memory while the guest migrates: a log, a bit for each page.

The log is a file that the front end shares, with other back ends too, and all of them
set bits at once. Python cannot set a bit atomically; but it can store a byte. So all
eight pages of a byte are marked together: seven too many cost a copy of each, one too
few would be memory that is wrong on the other machine.
"""

from __future__ import annotations

import os
from typing import Final

from balloon_plugin.hosts.vhost_user import doorbells
from balloon_plugin.hosts.vhost_user.files import Window
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
        self._window: Window | None = None
        self._notifier: int | None = None

    @property
    def active(self) -> bool:
        """Whether there is a log."""
        return self._window is not None

    @property
    def torn(self) -> bool:
        """Whether the front end took the log away."""
        return self._window is not None and self._window.torn

    def replace(self, log: Log, fd: int) -> None:
        """Mark pages in another file from now on; the descriptor stays the caller's.

        :raises RefusalError: if it cannot be done.
        """
        window = Window(fd, log.offset, log.size, "a log")
        self._unmap()
        self._window = window

    def set_notifier(self, fd: int) -> None:
        """Tell a file descriptor, which is ours now, when something was marked.

        :raises OSError: if it is of no use; it stays the caller's.
        """
        doorbells.check(fd)
        self._drop_notifier()
        self._notifier = fd

    def mark(self, address: int, size: int) -> None:
        """Mark the pages of a range of guest-physical addresses, and some beside."""
        if self._window is None:
            return
        first = address // _STRETCH
        end = min(-(-(address + size) // _STRETCH), len(self._window.view))
        if first < end:
            self._window.view[first:end] = b"\xff" * (end - first)
            if self._notifier is not None:
                doorbells.post(self._notifier)

    def close(self) -> None:
        """Let go of everything that the front end gave."""
        self._unmap()
        self._drop_notifier()
        self.discards = False

    def _unmap(self) -> None:
        if self._window is not None:
            self._window.close()
            self._window = None

    def _drop_notifier(self) -> None:
        if self._notifier is not None:
            os.close(self._notifier)
            self._notifier = None
