"""Descriptors of a front end, written to and read from without ever waiting.

A descriptor that was passed over a socket is one and the same file for both sides, and
so are its flags: a front end can fill a pipe, take ``O_NONBLOCK`` away, and would have
whoever writes to it wait for ever, with all the guests that it serves. So nothing here
relies on that flag where the kernel takes the wish with the call (``RWF_NOWAIT``), and
what is not made for ringing is not taken at all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from termios import FIONREAD, TIOCOUTQ
from typing import Final

__all__ = ["answer", "check", "drain", "is_unread", "post", "receive", "send"]

_ONE: Final = (1).to_bytes(8, "little")
"""What is written to an eventfd (or, by User-Mode Linux, read from a pipe)."""

_MOST: Final = 4096
"""Bytes dropped at once of what nobody asked for."""

_UNSUPPORTED: Final = (errno.EOPNOTSUPP, errno.EINVAL)
"""What kernels say to ``RWF_NOWAIT`` on a file that does not know it."""


def check(fd: int) -> None:
    """Refuse what is neither an eventfd nor a pipe nor a socket.

    A file of a file system in user space, say, could keep a reader waiting.

    :raises OSError: if it is of another kind, or cannot be made not to block.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_IFMT(mode) and not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        raise OSError(errno.EINVAL, "no eventfd, pipe or socket")
    os.set_blocking(fd, False)


def post(fd: int, data: bytes = _ONE) -> None:
    """Write to a descriptor.

    One that is full holds a notification already; one that nobody reads is no loss.
    """
    with contextlib.suppress(OSError):
        send(fd, data)


def answer(fd: int) -> bool:
    """Take what a kick left; return whether it can be kicked again."""
    try:
        return bool(receive(fd, len(_ONE)))
    except BlockingIOError:
        return True
    except OSError:
        return False


def drain(fd: int) -> None:
    """Read and drop what a front end sends though nobody asked."""
    with contextlib.suppress(OSError):
        receive(fd, _MOST)


def is_unread(fd: int) -> bool:
    """Return whether something that was written to a pipe or socket is there yet."""
    asked = TIOCOUTQ if stat.S_ISSOCK(os.fstat(fd).st_mode) else FIONREAD
    try:
        return any(fcntl.ioctl(fd, asked, bytes(4)))
    except OSError:
        return False


def send(fd: int, data: bytes) -> int:
    """Write what there is room for, and return how much it was.

    :raises BlockingIOError: if there is no room.
    :raises OSError: if it cannot be written to.
    """
    if stat.S_IFMT(os.fstat(fd).st_mode):
        try:
            return os.pwritev(fd, (data,), -1, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    # An eventfd does not know that wish. It would have to be full in the moment after
    # the flag was set again, and the flag be gone.
    os.set_blocking(fd, False)
    return os.write(fd, data)


def receive(fd: int, size: int) -> bytes:
    """Read up to ``size`` bytes; none at the end.

    :raises BlockingIOError: if there is nothing now.
    :raises OSError: if it cannot be read.
    """
    room = bytearray(size)
    try:
        return bytes(room[: os.preadv(fd, (room,), -1, os.RWF_NOWAIT)])
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    os.set_blocking(fd, False)
    return os.read(fd, size)
