"""The socket of one daemon: requests out, one at a time, and its replies in.

Knows no front end, and nothing of what is asked.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from balloon_plugin.hosts.vhost_user import messages
from balloon_plugin.hosts.vhost_user.loop import Loop
from balloon_plugin.hosts.vhost_user.messages import (
    Assembler,
    BrokenStreamError,
    Message,
)
from balloon_plugin.hosts.vhost_user.wire import LostError, Wire

__all__ = ["Back"]


class Back:
    """A daemon that somebody is connected to.

    :param path: the socket on which it listens.
    :param loop: calls back.
    :param heard: is called with a request and its reply, whose file descriptors are
        closed after that.
    :param lost: is called when it is gone, or what it says is no reply.
    :raises OSError: if nobody listens there.
    """

    def __init__(
        self,
        path: Path,
        loop: Loop,
        heard: Callable[[Message, Message], None],
        lost: Callable[[], None],
    ) -> None:
        sock = socket.socket(socket.AF_UNIX)
        self._wire = Wire(sock)
        try:
            sock.connect(os.fspath(path))
        except OSError:
            sock.close()
            raise
        self._loop = loop
        self._heard = heard
        self._lost = lost
        self._asked: Message | None = None
        self._replies = Assembler(replies=True)
        loop.watch(self._wire.fd, self._readable)

    def ask(self, message: Message) -> None:
        """Send a request, and ask that it be acknowledged; one at a time."""
        self._asked = message
        try:
            self._wire.send(
                messages.request(message.code, message.payload), message.fds
            )
        except LostError:
            self._lost()

    def close(self) -> None:
        """Hang up."""
        self._loop.ignore(self._wire.fd)
        self._wire.close()

    def _readable(self) -> None:
        try:
            received = self._wire.receive(self._replies.wanted)
            reply = None if received is None else self._replies.feed(*received)
        except (LostError, BrokenStreamError):
            self._lost()
            return
        if reply is not None:
            self._take(reply)

    def _take(self, reply: Message) -> None:
        asked, self._asked = self._asked, None
        if asked is None or asked.code != reply.code:
            self._lost()
            return
        self._heard(asked, reply)
        self._wire.close_loose()
