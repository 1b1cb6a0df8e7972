"""A device's state on its way to or from a front end that migrates.

The front end gives one end of a pipe. It is written to, or read to its end, as far as
it goes without waiting; meanwhile others are served.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from balloon_plugin.hosts.vhost_user import doorbells
from balloon_plugin.hosts.vhost_user.loop import Loop

__all__ = ["MOST_BYTES", "Transfer"]

MOST_BYTES: Final = 1 << 24
"""Bytes of a state that are taken from a front end: single pages of 64 GiB of RAM.

To read more would keep other guests waiting for too long.
"""

_PIECE: Final = 1 << 16
"""Bytes that a pipe holds, usually."""


class Transfer:
    """One transfer; it begins at once.

    :param fd: the pipe, which is its own from now on.
    :param loop: calls back.
    :param data: what to write, or ``None`` to read.
    :param done: is called at the end, with whether all was written, or with what was
        read, or with ``None`` if that failed.
    :raises OSError: if the descriptor is of no use; it stays the caller's.
    """

    def __init__(
        self,
        fd: int,
        loop: Loop,
        data: bytes | None,
        done: Callable[[bytes | None], None],
    ) -> None:
        doorbells.check(fd)
        self._fd = fd
        self._open = True
        self._loop = loop
        self._done = done
        self._data = b"" if data is None else data
        if data is None:
            loop.watch(fd, self._read)
        else:
            loop.watch(fd, self._write, writing=True)

    def close(self) -> None:
        """End it, if it has not ended."""
        if self._open:
            self._open = False
            self._loop.ignore(self._fd)
            os.close(self._fd)

    def _write(self) -> None:
        try:
            self._data = self._data[doorbells.send(self._fd, self._data[:_PIECE]) :]
        except BlockingIOError:
            return
        except OSError:
            self._end(None)
            return
        if not self._data:
            self._end(b"")

    def _read(self) -> None:
        try:
            piece = doorbells.receive(self._fd, _PIECE)
        except BlockingIOError:
            return
        except OSError:
            self._end(None)
            return
        self._data += piece
        if not piece or len(self._data) > MOST_BYTES:
            self._end(None if piece else self._data)

    def _end(self, result: bytes | None) -> None:
        self.close()
        self._done(result)
