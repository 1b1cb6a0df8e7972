"""Where a moment lies in a picture of several timelines of one guest.

Of the steps of a simulated guest few matter at first, and many go by later. So each of
its three phases is as wide as the others, and within one a step is the narrower the
later it comes; phases stand above one another whatever the policy. In a recording the
moments at which anything changed are the steps, and their times stand below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from balloon_plugin.report.timeline import Timeline

__all__ = ["Axis"]

PHASES: Final = (
    {"wide": "left alone", "narrow": "left alone"},
    {"wide": "asked for a balloon", "narrow": "asked"},
    {"wide": "asked to give it back", "narrow": "asked back"},
)
"""What happens in each phase of a run, by how much room there is to say it."""

_MARKED: Final = (10, 100)
"""Steps of a phase that are marked."""

_TIMED: Final = (2, 5, 10, 30, 100)
"""Moments of a phase that are marked with their times."""


class Axis:
    """The axis that several timelines share.

    :param timelines: of one guest, with the same unit.

    :ivar end: where it ends.
    :ivar phases: where each phase begins, with its names.
    :ivar ticks: positions with their labels.
    """

    def __init__(self, timelines: Sequence[Timeline]) -> None:
        self._moments = sorted({at for each in timelines for at in _moments(each)})
        self._by_steps = timelines[0].is_by_steps
        self._bounds = {id(each): self._limits(each) for each in timelines}
        lengths = [
            max(bounds[at + 1] - bounds[at] for bounds in self._bounds.values())
            for at in range(len(PHASES))
        ]
        self._lengths = [max(1.0, length) for length in lengths]
        # Of the last phases of a recording there may be nothing.
        count = max([1, *(at + 1 for at, length in enumerate(lengths) if length)])
        self.end = float(count)
        self.phases: list[tuple[float, Mapping[str, str]]] = [
            (float(at), names) for at, names in enumerate(PHASES[:count])
        ]
        self.ticks = self._ticks(self._bounds[id(timelines[0])])

    def place(self, timeline: Timeline, at: float) -> float:
        """Return where a moment of a timeline lies."""
        bounds, step = self._bounds[id(timeline)], self._step(at)
        phase = min(sum(step >= bound for bound in bounds[1:-1]), round(self.end) - 1)
        return phase + self._within(phase, step - bounds[phase])

    def _step(self, at: float) -> float:
        return at if self._by_steps else float(self._moments.index(at))

    def _within(self, phase: int, steps: float) -> float:
        return min(1.0, math.log1p(steps) / math.log1p(self._lengths[phase]))

    def _limits(self, timeline: Timeline) -> tuple[float, float, float, float]:
        """Return the steps at which phases begin, and at which the last one ends."""
        end = self._step(timeline.end)
        wanted = [self._step(ask.at) for ask in timeline.asks if ask.num_pages]
        begun = wanted[0] if wanted else end
        back = [self._step(ask.at) for ask in timeline.asks if not ask.num_pages]
        after = [step for step in back if step >= begun]
        return 0.0, begun, after[-1] if after else end, end

    def _ticks(self, bounds: Sequence[float]) -> list[tuple[float, str]]:
        """Return marks: how many steps into a phase, or at what time."""
        label = _number if self._by_steps else self._time(bounds)
        return [
            (phase + self._within(phase, mark), label(phase, mark))
            for phase in range(round(self.end))
            for mark in (_MARKED if self._by_steps else _TIMED)
            if mark < self._lengths[phase]
        ]

    def _time(self, bounds: Sequence[float]) -> Callable[[int, int], str]:
        def time(phase: int, mark: int) -> str:
            return f"{self._moments[round(bounds[phase]) + mark]:.2f} s"

        return time


def _number(_phase: int, mark: int) -> str:
    return str(mark)


def _moments(timeline: Timeline) -> list[float]:
    return [
        0.0,
        timeline.end,
        *(level.at for level in timeline.levels),
        *(span.at for span in timeline.spans),
        *(finding.at for finding in timeline.findings),
        *(ask.at for ask in timeline.asks),
    ]
