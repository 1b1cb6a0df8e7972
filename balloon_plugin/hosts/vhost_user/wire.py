"""The socket of one front end: bytes and file descriptors in, replies out.

Knows no messages. Every descriptor that arrives is this module's until somebody owns
it; the others are closed.
"""

from __future__ import annotations

import array
import logging
import os
import select
import socket
from collections.abc import Collection, Sequence
from typing import Final

from balloon_plugin.hosts.vhost_user.messages import MAX_FDS

__all__ = ["GoneError", "LostError", "Wire"]

_ANCILLARY: Final = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


class LostError(Exception):
    """The connection cannot go on; the text is a sentence."""

    level = logging.WARNING


class GoneError(LostError):
    """The front end closed the connection, as it may at any time."""

    level = logging.INFO


class Wire:
    """One front end's socket, which never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._loose: set[int] = set()
        sock.setblocking(False)  # noqa: FBT003 - named so by the standard library

    @property
    def fd(self) -> int:
        """The socket's own file descriptor."""
        return self._socket.fileno()

    def hung_up(self) -> bool:
        """Return whether the front end went, even if there is more to be read of it."""
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def receive(self, wanted: int) -> tuple[bytes, list[int]] | None:
        """Read up to ``wanted`` bytes with the descriptors among them, if any came.

        :raises LostError: if the front end is gone, or sends too many descriptors.
        """
        try:
            # Not socket.recv_fds(), which cannot pass the flag (python/cpython#107898):
            # a program that this process starts would inherit guest memory.
            data, ancillary, flags, _ = self._socket.recvmsg(
                wanted, _ANCILLARY, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except OSError as error:
            raise LostError(f"the front end is lost: {error}") from error
        fds = _descriptors(ancillary)
        self._loose.update(fds)
        if flags & socket.MSG_CTRUNC:
            raise LostError(
                f"a message brings more than {MAX_FDS} file descriptors, or more than "
                "this process may still open"
            )
        if not data:
            raise GoneError("the front end went")
        return data, fds

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send a reply, whole, and file descriptors with it, which stay ours.

        :raises LostError: if it does not fit: nobody waits for a front end to read.
        """
        try:
            sent = socket.send_fds(self._socket, [data], fds)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise LostError(f"the front end is lost: {error}") from error
        if sent < len(data):
            raise LostError("the front end does not read its replies")

    def own(self, fd: int) -> None:
        """Leave a descriptor that arrived to the caller."""
        self._loose.remove(fd)

    def close_loose(self, kept: Collection[int] = ()) -> None:
        """Close the descriptors that arrived and that nobody owns, but those kept."""
        for fd in self._loose.difference(kept):
            self._loose.remove(fd)
            os.close(fd)

    def close(self) -> None:
        """Close the socket and what is left of what it brought."""
        self.close_loose()
        self._socket.close()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return fds.tolist()
