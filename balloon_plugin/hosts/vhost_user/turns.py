"""The turns of one front end: what one may cost, and who waits for the next.

All front ends of a daemon are served in one thread, one turn after another. What goes
wrong in a turn is nobody else's business, and whoever had a long one rests.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

from balloon_plugin.errors import HostError
from balloon_plugin.hosts.vhost_user.loop import Loop
from balloon_plugin.hosts.vhost_user.wire import LostError

__all__ = ["LONG_TURN", "FrontEnd", "Turns", "guarded"]

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_F = TypeVar("_F", bound="FrontEnd")

LONG_TURN: Final = 0.02
"""Seconds of the processor's time after which a front end has to rest as long.

Whatever keeps the daemon busy for one guest (holes in files, a policy that thinks, a
state that is written), others have at least as much of its time. A real driver's turn
takes a hundredth of that.
"""


class FrontEnd(Protocol):
    """What has turns."""

    open: bool
    name: str

    def close(self, why: str, level: int = logging.WARNING) -> None:
        """End the connection."""

    def abandon(self) -> None:
        """Keep nothing of the driver session: it cannot be taken up again."""

    def is_torn(self) -> bool:
        """Return whether memory was found gone that the front end had given."""

    def rest(self, seconds: float) -> None:
        """Leave the daemon's time to others for a while."""


def guarded(
    method: Callable[Concatenate[_F, _P], None],
) -> Callable[Concatenate[_F, _P], None]:
    """Let one turn of a front end cost the others nothing.

    The connection ends when it is lost, or when the device fails. It rests after a turn
    that was long.
    """

    @functools.wraps(method)
    def call(self: _F, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        if not self.open:
            return
        began = time.thread_time()
        try:
            method(self, *args, **kwargs)
        except LostError as lost:
            self.close(str(lost), lost.level)
        except HostError as error:
            self.close(f"the connection ends: {error}")
        except Exception:  # noqa: BLE001 - whatever it is, other guests live on
            _log.exception("%s: the device failed", self.name)
            self.abandon()
            self.close("the connection ends because the device failed")
        if self.is_torn():
            self.abandon()
            self.close("the connection ends: the front end took its memory away")
        took = time.thread_time() - began
        if took > LONG_TURN:
            self.rest(took)

    return call


class Turns:
    """Which queues of a front end wait for another turn, and whether it rests.

    :param loop: calls back.
    :param serve: is called with the number of a queue when others had their turn, and
        asks :meth:`take` whether it may.

    :ivar resting: whether the front end rests.
    """

    def __init__(self, loop: Loop, serve: Callable[[int], None]) -> None:
        self.resting = False
        self._loop = loop
        self._serve = serve
        self._waiting: set[int] = set()

    def waits(self, index: int) -> bool:
        """Return whether a queue waits for its turn."""
        return index in self._waiting

    def soon(self, index: int) -> None:
        """Give a queue a turn after all others; one, however often that is asked."""
        if index not in self._waiting:
            self._waiting.add(index)
            self._call(index)

    def take(self, index: int) -> bool:
        """Return whether a queue has its turn now; in a rest it waits on."""
        if self.resting:
            return False
        self._waiting.discard(index)
        return True

    def rest(self, seconds: float, wake: Callable[[], None]) -> None:
        """Give no turns until ``wake`` is called, so much later."""
        self.resting = True
        self._loop.at(time.monotonic() + seconds, wake)

    def wake(self) -> None:
        """Give turns again, to those first that waited."""
        self.resting = False
        for index in self._waiting:
            self._call(index)

    def _call(self, index: int) -> None:
        self._loop.soon(functools.partial(self._serve, index))
