"""The relay: sockets for front ends, whose daemons may die and come again.

It knows no balloon. Memory, kicks and calls do not pass through it: their descriptors
are handed on.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from balloon_plugin.hosts.relay.line import Line
from balloon_plugin.hosts.vhost_user.door import TICK, Door
from balloon_plugin.hosts.vhost_user.loop import Loop

__all__ = ["Relay"]


class Relay:
    """Holds the connections of front ends, from one thread.

    Also a context manager: leaving it closes everything and removes the sockets.
    """

    def __init__(self) -> None:
        self._loop = Loop()
        self._doors: list[Door[Line]] = []
        self._closed = False
        self._tick()

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
        )
        self._doors.append(door)

    def run(self) -> None:
        """Relay until :meth:`stop`; the sockets stay until :meth:`close`."""
        self._loop.run()

    def stop(self) -> None:
        """Make :meth:`run` return, or not begin; for any thread and signal handler."""
        self._loop.stop()

    def step(self, timeout: float | None = 0.0) -> bool:
        """Wait up to ``timeout`` seconds for work, do it, and say if there was any."""
        return self._loop.step(timeout)

    def close(self) -> None:
        """End all connections and remove the sockets."""
        if self._closed:
            return
        self._closed = True
        while self._doors:
            self._doors.pop().close("the relay ends")
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _tick(self) -> None:
        for door in self._doors:
            door.tick()
        self._loop.at(time.monotonic() + TICK, self._tick)
