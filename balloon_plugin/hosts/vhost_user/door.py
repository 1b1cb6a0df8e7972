"""The door of one socket: front ends come in, one at a time, and not too often.

Knows nothing of what is said behind it.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from balloon_plugin.hosts.sockets import SocketFile
from balloon_plugin.hosts.vhost_user.loop import Loop

__all__ = ["MAX_COMINGS", "TICK", "Door", "Visitor"]

_log = logging.getLogger(__name__)

TICK: Final = 1.0
"""Seconds between two calls of :meth:`Door.tick`."""

MAX_COMINGS: Final = 8
"""Front ends let in on one socket between two ticks.

Each costs a few lines in the log, and more if it talks nonsense first.
"""


class Visitor(Protocol):
    """A front end that was let in."""

    def hung_up(self) -> bool:
        """Return whether it went, though nobody has noticed yet."""

    def close(self, why: str, level: int = logging.WARNING) -> None:
        """End the connection; :meth:`Door.left` is called of it."""


_V = TypeVar("_V", bound=Visitor)


class Door(Generic[_V]):
    """Listens on a new socket for one front end at a time.

    :param path: of the socket, made with mode 0600. One that nobody listens on any more
        is replaced.
    :param loop: calls back.
    :param let_in: makes a visitor of a socket that was accepted.
    :param farewell: why a visitor's connection ends with the door.
    :raises HostError: if the socket exists and is alive, or cannot be made.

    :ivar visitor: the front end that is there.
    """

    def __init__(
        self,
        path: Path,
        loop: Loop,
        let_in: Callable[[socket.socket], _V],
        farewell: str,
    ) -> None:
        self.visitor: _V | None = None
        self._path = path
        self._loop = loop
        self._let_in = let_in
        self._farewell = farewell
        self._comings = 0
        self._file = SocketFile(path)
        self._listener = self._file.socket
        self._listen()

    def tick(self) -> None:
        """Let as many in again as between any two ticks."""
        self._comings = 0

    def left(self) -> None:
        """Note that the visitor is gone."""
        self.visitor = None

    def close(self) -> None:
        """End the visitor's connection, and remove the socket."""
        if self.visitor is not None:
            self.visitor.close(self._farewell, logging.INFO)
        self._loop.ignore(self._listener.fileno())
        self._file.close()

    def _accept(self) -> None:
        self._comings += 1
        if self._comings > MAX_COMINGS:
            self._rest("they come and go too often")
            return
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            self._rest(error)
            return
        if self.visitor is not None and self.visitor.hung_up():
            self.visitor.close("the front end went", logging.INFO)
        if self.visitor is not None:
            _log.warning("%s: a second front end came and was sent away", self._path)
            sock.close()
            return
        _log.info("%s: a front end connected", self._path)
        self.visitor = self._let_in(sock)

    def _rest(self, why: object) -> None:
        """Accept nobody for a while: most likely there are no descriptors left."""
        _log.warning("%s: a front end cannot be let in: %s", self._path, why)
        self._loop.ignore(self._listener.fileno())
        self._loop.at(time.monotonic() + TICK, self._listen)

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.watch(self._listener.fileno(), self._accept)
