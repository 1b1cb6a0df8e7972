"""One front end and the daemon of the moment, and what passes between the two.

The thin edge around :class:`~balloon_plugin.hosts.relay.talk.Talk`. It waits for
nobody: while there is no daemon it looks for one now and then, and leaves unread what
the front end says after the request that waits.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, Final, ParamSpec

from balloon_plugin.hosts.relay.back import Back
from balloon_plugin.hosts.relay.talk import Introduction, Talk, UnfitError
from balloon_plugin.hosts.vhost_user.files import RefusalError, file_size
from balloon_plugin.hosts.vhost_user.loop import Loop
from balloon_plugin.hosts.vhost_user.messages import (
    Assembler,
    BrokenStreamError,
    Message,
    NonsenseError,
)
from balloon_plugin.hosts.vhost_user.wire import GoneError, LostError, Wire

__all__ = ["Line"]

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")

_SOON: Final = 0.02
"""Seconds until a daemon is looked for at first; doubled each time."""

_LATEST: Final = 0.25
"""Seconds between two looks at the most.

Also how long a daemon has to live for its successor to be looked for soon again: one
front end can cost it four connections a second, whatever it does.
"""


def _guarded(
    method: Callable[Concatenate[Line, _P], None],
) -> Callable[Concatenate[Line, _P], None]:
    """Let what goes wrong with one line cost the others nothing."""

    @functools.wraps(method)
    def call(self: Line, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        if not self.open:
            return
        try:
            method(self, *args, **kwargs)
        except LostError as lost:
            self.close(str(lost), lost.level)
        except (BrokenStreamError, NonsenseError) as error:
            self.close(f"the connection ends: {error}")
        except Exception:  # noqa: BLE001 - whatever it is, other guests live on
            _log.exception("%s: the relay failed", self.name)
            self.close("the connection ends because the relay failed")

    return call


class Line:
    """A front end that connected, for as long as it stays.

    :param sock: its socket, already accepted.
    :param name: for the log.
    :param daemon: the socket on which its daemon listens, now or later.
    :param loop: calls back.
    :param on_close: called once, when the connection has ended.
    """

    def __init__(
        self,
        sock: socket.socket,
        name: str,
        daemon: Path,
        loop: Loop,
        on_close: Callable[[], None],
    ) -> None:
        self.open = True
        self.name = name
        self._daemon = daemon
        self._loop = loop
        self._on_close = on_close
        self._talk = Talk()
        # The front end; its wire has all descriptors that came and are needed still.
        self._front = Wire(sock)
        self._requests = Assembler()
        self._waiting: Message | None = None
        # The daemon, if there is one, and what it is being told.
        self._back: Back | None = None
        self._introduction: Introduction | None = None
        self._since = 0.0
        # While there is none.
        self._delay = _SOON
        self._missed = False
        self._trouble = ""
        loop.watch(self._front.fd, self._readable)
        loop.soon(self._connect)

    def hung_up(self) -> bool:
        """Return whether the front end went, though nobody has noticed yet."""
        return self._front.hung_up()

    def close(self, why: str, level: int = logging.WARNING) -> None:
        """End both connections."""
        if not self.open:
            return
        self.open = False
        _log.log(level, "%s: %s", self.name, why)
        self._leave()
        self._loop.ignore(self._front.fd)
        self._front.close()
        self._on_close()

    # --- the front end --------------------------------------------------------------

    @_guarded
    def _readable(self) -> None:
        received = self._front.receive(self._requests.wanted)
        message = None if received is None else self._requests.feed(*received)
        if message is None:
            return
        # One at a time: the next is read when this one is answered.
        self._loop.ignore(self._front.fd)
        self._waiting = self._talk.take(message)
        if self._introduction is None:
            self._ask(self._waiting)

    def _answer(self, reply: bytes, fds: tuple[int, ...] = ()) -> None:
        """Be done with the request that waits."""
        self._waiting = None
        self._front.close_loose(self._talk.said.fds)
        if reply:
            self._front.send(reply, fds)
        self._loop.watch(self._front.fd, self._readable)

    # --- the daemon -----------------------------------------------------------------

    @_guarded
    def _connect(self) -> None:
        if self._waiting is not None and self.hung_up():
            # Nothing is read of it, not even its end.
            raise GoneError("the front end went")
        try:
            self._back = Back(self._daemon, self._loop, self._heard, self._lose)
        except OSError as error:
            self._miss(f"no daemon is on {self._daemon}: {error.strerror or error}")
            self._look_again()
            return
        self._introduction = self._talk.introduce(_look)
        self._ask(next(self._introduction))

    def _ask(self, message: Message) -> None:
        if self._back is not None:
            self._back.ask(message)

    @_guarded
    def _heard(self, asked: Message, reply: Message) -> None:
        try:
            if self._introduction is None:
                self._answer(self._talk.answer(asked, reply), reply.fds)
            else:
                self._ask(self._introduction.send(reply))
        except StopIteration:
            self._go_on()
        except UnfitError as error:
            self._miss(str(error))
            self._lose()

    def _go_on(self) -> None:
        """Go on with a daemon that was told all."""
        if self._missed:
            _log.info("%s: the daemon is there", self.name)
        self._introduction, self._since = None, time.monotonic()
        self._missed, self._trouble = False, ""
        if self._waiting is not None:
            self._ask(self._waiting)

    @_guarded
    def _lose(self) -> None:
        """Be without a daemon until there is another."""
        self._talk.check()
        lived = self._introduction is None
        if lived and time.monotonic() - self._since > _LATEST:
            self._delay = _SOON
        self._leave()
        self._look_again()
        if lived and self._waiting is not None:
            reply = self._talk.died(self._waiting)
            if reply:
                self._answer(reply)

    def _leave(self) -> None:
        if self._back is not None:
            self._back.close()
        self._back = self._introduction = None

    # --- without a daemon -----------------------------------------------------------

    def _miss(self, trouble: str) -> None:
        """Tell why there is no daemon of use, once as long as it is the same."""
        if trouble != self._trouble:
            _log.warning("%s: the front end waits: %s", self.name, trouble)
        self._trouble = trouble

    def _look_again(self) -> None:
        self._missed = True
        self._loop.at(time.monotonic() + self._delay, self._connect)
        self._delay = min(2 * self._delay, _LATEST)


def _look(fd: int, offset: int, size: int) -> bytes:
    """Return what is in a file that a front end shares, without mapping it."""
    try:
        file_size(fd)  # refuses a file that can let its reader wait
        return os.pread(fd, size, offset)
    except (OSError, OverflowError, RefusalError):
        return b""
