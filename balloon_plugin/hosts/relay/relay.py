"""The relay: sockets for front ends, whose daemons may die and come again.

It knows no balloon. Memory, kicks and calls do not pass through it: their descriptors
are handed on.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

from balloon_plugin.hosts.relay.line import Line
from balloon_plugin.hosts.sockets import why_nobody_is_on
from balloon_plugin.hosts.vhost_user.door import Door
from balloon_plugin.hosts.vhost_user.loop import Loop
from balloon_plugin.hosts.vhost_user.server import Server

__all__ = ["Relay"]

_log = logging.getLogger(__name__)


class Relay(Server["_Post"]):
    """Holds the connections of front ends, from one thread.

    Also a context manager: leaving it closes everything and removes the sockets.
    """

    def add(self, path: str | os.PathLike[str], daemon: Path) -> None:
        """Listen on a new socket for one front end at a time.

        :param path: of the socket, made with mode 0600. One that nobody listens on any
            more is replaced.
        :param daemon: the socket of the daemon, which need not be there yet; that it is
            not, and then that it is, is told in the log.
        :raises HostError: if the socket exists and is alive, or cannot be made.
        """
        self._slots.append(_Post(Path(path), daemon, self._loop))


class _Post(Door[Line]):
    """A door, and who looks out for the daemon until a front end does.

    :param daemon: the socket on which it listens, now or later.
    """

    def __init__(self, path: Path, daemon: Path, loop: Loop) -> None:
        def let_in(sock: socket.socket) -> Line:
            return Line(sock, os.fspath(path), daemon, loop, self.left)

        super().__init__(path, loop, let_in, "the relay ends")
        self._daemon = daemon
        self._looks_out = True
        self._missed = False
        loop.soon(self._look_out)

    def tick(self) -> None:
        """Let time pass."""
        super().tick()
        self._look_out()

    def _look_out(self) -> None:
        """Tell once that the daemon is not there, and once that it is."""
        self._looks_out &= self.visitor is None
        if not self._looks_out:
            return
        why = why_nobody_is_on(self._daemon)
        if why and not self._missed:
            _log.warning(
                "%s: no daemon is on %s yet (%s): waiting for one",
                self._path,
                self._daemon,
                why,
            )
        if self._missed and not why:
            _log.info("%s: the daemon is there", self._path)
        self._missed = self._looks_out = bool(why)
