"""Listening sockets as files: made for their user alone, and taken away again.

Knows nothing of what is said on them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from balloon_plugin.errors import HostError

__all__ = ["SocketFile", "why_nobody_is_on"]


class SocketFile:
    """A listening socket that only its user can connect to, and the file that names it.

    A socket in its place that nobody listens on any more is replaced.

    :param path: where it is made, with mode 0600.
    :raises HostError: if it exists and is alive, or cannot be made.

    :ivar socket: the socket; it does not block.
    """

    def __init__(self, path: Path) -> None:
        _make_way(path)
        self.socket = _listen(path)
        self._path = path
        about = path.stat()
        self._identity = about.st_dev, about.st_ino

    def close(self) -> None:
        """Close the socket and remove its file."""
        self.socket.close()
        with contextlib.suppress(OSError):
            about = self._path.stat()
            # Somebody may have put another socket in its place.
            if (about.st_dev, about.st_ino) == self._identity:
                self._path.unlink()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux makes the file with the mode that the socket has, so that it is never
        # open to others, and the umask of the process is left alone.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(os.fspath(path))
        listener.listen()
        listener.setblocking(False)  # noqa: FBT003 - named so by Python
    except OSError as error:
        listener.close()
        raise HostError(
            f"the socket {path} cannot be made: {error.strerror or error}; choose "
            "another path"
        ) from error
    return listener


def _make_way(path: Path) -> None:
    """Remove a socket that nobody listens on any more."""
    try:
        about = path.lstat()
    except OSError:
        return  # there is none, or bind() says why there cannot be
    if not stat.S_ISSOCK(about.st_mode):
        raise HostError(
            f"{path} exists and is no socket: remove it or choose another path"
        )
    if _is_alive(path):
        raise HostError(
            f"somebody listens on {path} already: stop that daemon or choose another "
            "path"
        )
    with contextlib.suppress(OSError):
        path.unlink()


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003 - named so by Python
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except OSError as error:
            # A queue that is full is somebody's; a socket of another's cannot be told.
            return error.errno in (errno.EAGAIN, errno.EACCES, errno.EPERM)
    return True


def why_nobody_is_on(path: Path) -> str:
    """Return why nobody can be connected to, or nothing if somebody listens.

    Whoever listens does not notice: a datagram socket cannot be connected to theirs,
    and what it is told is whether theirs is alive.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            alive = error.errno == errno.EPROTOTYPE
            return "" if alive else error.strerror or str(error)
    return "Protocol wrong type for socket"
