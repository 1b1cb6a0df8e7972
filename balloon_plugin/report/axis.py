"""Where a moment lies in a picture of several timelines of one guest.

A recording has seconds. A simulated guest has steps, of which few matter at first and
many go by later; so each of its three phases is as wide as the others, and within one a
step is the narrower the later it comes. Phases stand above one another whatever the
policy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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


class Axis:
    """The axis that several timelines share.

    :param timelines: of one guest, with the same unit.

    :ivar end: where it ends.
    :ivar phases: where each phase begins, with its names; nothing for seconds.
    :ivar ticks: positions with their labels.
    """

    def __init__(self, timelines: Sequence[Timeline]) -> None:
        self._bounds = {id(each): _bounds(each) for each in timelines}
        self._by_steps = timelines[0].is_by_steps
        lengths = [
            max(bounds[at + 1] - bounds[at] for bounds in self._bounds.values())
            for at in range(len(PHASES))
        ]
        self._lengths = [max(1.0, length) for length in lengths]
        self.phases: list[tuple[float, Mapping[str, str]]] = []
        self.ticks: list[tuple[float, str]] = []
        self.end = max(each.end for each in timelines) or 1.0
        if self._by_steps:
            self.end = float(len(PHASES))
            self.phases = [(float(at), name) for at, name in enumerate(PHASES)]
            self.ticks = [
                (at + self._within(at, mark), str(mark))
                for at in range(len(PHASES))
                for mark in _MARKED
                if mark < self._lengths[at]
            ]

    def place(self, timeline: Timeline, at: float) -> float:
        """Return where a moment of a timeline lies."""
        if not self._by_steps:
            return at
        bounds = self._bounds[id(timeline)]
        phase = sum(at >= bound for bound in bounds[1:-1])
        return phase + self._within(phase, at - bounds[phase])

    def _within(self, phase: int, steps: float) -> float:
        return min(1.0, math.log1p(steps) / math.log1p(self._lengths[phase]))


def _bounds(timeline: Timeline) -> tuple[float, float, float, float]:
    """Return where the phases of a run begin, and where the last one ends."""
    wanted = [ask.at for ask in timeline.asks if ask.num_pages]
    begun = wanted[0] if wanted else timeline.end
    back = [ask.at for ask in timeline.asks if not ask.num_pages and ask.at >= begun]
    return 0.0, begun, back[-1] if back else timeline.end, timeline.end
