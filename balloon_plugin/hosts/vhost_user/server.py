"""What serves front ends on several sockets, from one thread.

Knows their time and their end, and nothing of what is behind a socket.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from balloon_plugin.hosts.vhost_user.door import TICK
from balloon_plugin.hosts.vhost_user.loop import Loop

__all__ = ["Served", "Server"]


class Served(Protocol):
    """A socket, and what is behind it."""

    def tick(self) -> None:
        """Let time pass; called every second."""

    def close(self) -> None:
        """End the connection and remove the socket."""


_S = TypeVar("_S", bound=Served)


class Server(Generic[_S]):
    """Serves what is put in its list of slots, from one thread.

    Also a context manager: leaving it closes everything and removes the sockets.
    """

    def __init__(self) -> None:
        self._loop = Loop()
        self._slots: list[_S] = []
        self._closed = False
        self._tick()

    def run(self) -> None:
        """Serve until :meth:`stop`; the sockets stay until :meth:`close`."""
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
        while self._slots:
            self._slots.pop().close()
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
        for slot in self._slots:
            slot.tick()
        self._loop.at(time.monotonic() + TICK, self._tick)
