"""The relay: sockets for front ends, whose daemons may die and come again.

It knows no balloon. Memory, kicks and calls do not pass through it: their descriptors
are handed on.
"""

from __future__ import annotations

import os
from pathlib import Path

from balloon_plugin.hosts.relay.line import Line
from balloon_plugin.hosts.vhost_user.door import Door
from balloon_plugin.hosts.vhost_user.server import Server

__all__ = ["Relay"]


class Relay(Server[Door[Line]]):
    """Holds the connections of front ends, from one thread.

    Also a context manager: leaving it closes everything and removes the sockets.
    """

    def add(self, path: str | os.PathLike[str], daemon: Path) -> None:
        """Listen on a new socket for one front end at a time.

        :param path: of the socket, made with mode 0600. One that nobody listens on any
            more is replaced.
        :param daemon: the socket of the daemon, which need not be there yet.
        :raises HostError: if the socket exists and is alive, or cannot be made.
        """
        name = os.fspath(path)
        door: Door[Line] = Door(
            Path(path),
            self._loop,
            lambda sock: Line(sock, name, daemon, self._loop, door.left),
            "the relay ends",
        )
        self._slots.append(door)
