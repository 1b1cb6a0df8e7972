"""Plugins that a run adds to a device: they look on, or offer more features."""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator
from typing import Final

from balloon_plugin import events, narrate
from balloon_plugin.compare.circumstance import Stop
from balloon_plugin.events import Event, Judgement, VerdictChanged
from balloon_plugin.hookspecs import hookimpl

__all__ = ["Clerk", "Offer", "Phase", "Teller"]


class Phase(enum.Enum):
    """A part of a run, with the moments in it; the last one is its end."""

    TEST = (
        Stop.NEGOTIATED,
        Stop.LOOKING,
        Stop.INFLATING,
        Stop.REPORTED,
        Stop.DEFLATING,
        Stop.IDLE,
    )
    GROW = (Stop.GROWING, Stop.FULL)
    SHRINK = (Stop.SHRINKING, Stop.EMPTY)

    @property
    def stops(self) -> tuple[Stop, ...]:
        """Its moments, in their usual order."""
        stops: tuple[Stop, ...] = self.value
        return stops


_SIGNS: Final[dict[Stop, type[object]]] = {
    Stop.NEGOTIATED: events.FeaturesAcked,
    Stop.LOOKING: events.TargetRead,
    Stop.INFLATING: events.PagesInflated,
    Stop.REPORTED: events.ActualWritten,
    Stop.DEFLATING: events.PagesDeflated,
    Stop.GROWING: events.PagesInflated,
    Stop.SHRINKING: events.PagesDeflated,
}
"""The event that is a moment, where one is."""


class Clerk:
    """Writes down what a run is judged by.

    :param count: returns how many steps the guest has done.

    :ivar judgement: of the last verdict.
    :ivar steps: after how many steps it came to that.
    :ivar come: moments that have come in this phase.
    :ivar page_seconds: memory that the guest missed times how long, in each phase.
    """

    def __init__(self, count: Callable[[], int]) -> None:
        self.judgement = Judgement.UNDECIDED
        self.steps = 0
        self.come: set[object] = set()
        self.page_seconds = dict.fromkeys(Phase, 0.0)
        self._count = count
        self._phase = Phase.TEST
        self._awaited: dict[type[object], Stop] = {}

    def wait(self, phase: Phase) -> None:
        """Look out for the moments of a phase."""
        self._phase = phase
        self.come.clear()
        self._awaited = {_SIGNS[stop]: stop for stop in phase.stops if stop in _SIGNS}

    def miss(self, pages: int, seconds: float) -> None:
        """Note that the guest missed so many pages for so long."""
        self.page_seconds[self._phase] += pages * seconds

    @hookimpl
    def balloon_event(self, event: Event) -> None:
        """Note a change of judgement, and what is seen for the first time."""
        stop = self._awaited.pop(type(event), None)
        if stop is not None:
            self.come.add(stop)
        elif isinstance(event, VerdictChanged):
            judgement = event.verdict.judgement
            if judgement is not self.judgement:
                self.judgement, self.steps = judgement, self._count()


class Teller:
    """Puts every event into words."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    @hookimpl
    def balloon_event(self, event: Event) -> None:
        """Tell of one event."""
        self._tell(narrate.sentence(event))


class Offer:
    """Offers features besides those of the device and its policy.

    :param features: a mask of bits 0 to 23.
    """

    def __init__(self, features: int) -> None:
        self._features = features

    @hookimpl(wrapper=True)
    def policy_features(self) -> Generator[None, int | None, int]:
        """Add to what the policy offers."""
        offered = yield
        return (offered or 0) | self._features
