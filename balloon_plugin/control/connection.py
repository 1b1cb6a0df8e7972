"""One client of the control socket: its descriptor, and what waits to be sent to it.

It never blocks. While answers wait for a client, nothing more is read from it; events
that it does not read are kept up to a bound, at which it is cut off.
"""

from __future__ import annotations

import selectors
import socket
from typing import Final

from balloon_plugin.control.frames import MAX_MESSAGE, Frames
from balloon_plugin.control.monitor import Monitor

__all__ = ["MAX_BACKLOG", "Connection"]

MAX_BACKLOG: Final = 1 << 20
"""Bytes that wait for a client which reads nothing, before it is cut off.

Some thousand events; a client that lives reads them within a second.
"""

_TURN: Final = 4096
"""Bytes read from one client before the others have their turn: a hundred commands."""


class Connection:
    """One client.

    :param sock: its socket, which becomes this object's.
    :param monitor: its conversation.

    :ivar done: whether it is to be closed.
    """

    def __init__(self, sock: socket.socket, monitor: Monitor) -> None:
        sock.setblocking(False)  # noqa: FBT003 - named so by Python
        self.socket = sock
        self.done = False
        self._monitor = monitor
        self._frames = Frames()
        self._ending = False
        self._unsent = bytearray(monitor.greeting())
        self._send()

    @property
    def mask(self) -> int:
        """What of :mod:`selectors` to wait for."""
        return selectors.EVENT_WRITE if self._unsent else selectors.EVENT_READ

    def handle(self, mask: int) -> None:
        """Do what can be done without waiting."""
        if mask & selectors.EVENT_READ:
            self._receive()
        self._send()

    def tell(self, event: bytes) -> bool:
        """Send an event to a client that is ready for them.

        :returns: whether too much is waiting for it, so that it is cut off.
        """
        if not self._monitor.ready or self.done:
            return False
        self._unsent += event
        self._send()
        too_much = len(self._unsent) > MAX_BACKLOG
        self.done |= too_much
        return too_much

    def _receive(self) -> None:
        try:
            data = self.socket.recv(_TURN)
        except OSError:
            self.done = True  # it hung up
            return
        for message in self._frames.feed(data):
            self._unsent += self._monitor.receive(message)
        if not data:
            self._unsent += self._monitor.receive(self._frames.take())
            self._ending = True
        elif len(self._frames) >= MAX_MESSAGE:
            self._unsent += self._monitor.too_long()
            self._ending = True

    def _send(self) -> None:
        try:
            sent = self.socket.send(self._unsent) if self._unsent else 0
        except BlockingIOError:
            return
        except OSError:
            self.done = True
            return
        del self._unsent[:sent]
        self.done |= self._ending and not self._unsent
