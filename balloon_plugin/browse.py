"""Going through a replay step by step: which step is looked at, and what a page shows.

Pure: keys in, lines of text out. Knows steps and no terminal.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Final

from balloon_plugin import narrate
from balloon_plugin.events import Gate, Verdict
from balloon_plugin.replay import Step
from balloon_plugin.trace.lines import Concluded, Entry

__all__ = ["HELP", "Browser"]

HELP: Final = "n next  p back  f,b ten  v verdict  d difference  g first  G last  q end"
"""The keys, for the last line of a page."""

_AROUND: Final = 3
"""Events shown before the current one, and after it."""

_HEADING: Final = ("", "evidence, the newest last")

_STRIDE: Final = 10
"""Events at a time, for whoever is in a hurry."""


class Browser:
    """A reader's place in a replay.

    :param steps: of the replay, at least one.
    :param title: what is replayed, in a line.
    :param recorded: the policy that was recorded.
    """

    def __init__(self, steps: Sequence[Step], title: str, recorded: str) -> None:
        self._steps = steps
        self._title = title
        self._recorded = recorded
        self.place = 0
        """Index of the current step."""
        self._moves: dict[str, Callable[[], int]] = {
            "n": lambda: self.place + 1,
            "p": lambda: self.place - 1,
            "f": lambda: self.place + _STRIDE,
            "b": lambda: self.place - _STRIDE,
            "g": lambda: 0,
            "G": lambda: len(steps) - 1,
            "v": lambda: self._find(self._changes_state),
            "d": lambda: self._find(lambda i: bool(steps[i].news or steps[i].strays)),
        }

    def press(self, key: str) -> bool:
        """Take a key; return whether to go on. Keys without a meaning do nothing."""
        if key in self._moves:
            self.place = min(max(self._moves[key](), 0), len(self._steps) - 1)
        return key != "q"

    def _find(self, fits: Callable[[int], bool]) -> int:
        """Return the next place that fits, or this one if there is none."""
        following = range(self.place + 1, len(self._steps))
        return next(filter(fits, following), self.place)

    def _changes_state(self, place: int) -> bool:
        before, after = self._steps[place - 1].shadow, self._steps[place].shadow
        return before.verdict.state != after.verdict.state

    # --- the page -------------------------------------------------------------------

    def page(self, width: int, height: int) -> list[str]:
        """Return the lines of a page; no more than ``height``, none above ``width``.

        On a small terminal old evidence goes first, and then what surrounds the event.
        """
        step = self._steps[self.place]
        head = [f"event {step.shadow.events} of {self._count}  {self._title}", ""]
        around = self._around(width, _AROUND)
        body = ["", *self._told(step), *self._both(step), *self._news(step)]
        body = _wrapped(body, width)
        room = height - 2 - len(head) - len(body)
        if len(around) > room:
            around = self._around(width, max(0, room - 1) // 2)
        evidence = _evidence(step.shadow.verdict, width, room - len(around))
        lines = [*head, *around, *body, *evidence][: height - 2]
        lines += [""] * (height - 1 - len(lines))
        return [line[:width] for line in (*lines, HELP)]

    @property
    def _count(self) -> int:
        return self._steps[-1].shadow.events

    def _around(self, width: int, many: int) -> list[str]:
        first = min(self.place - many, len(self._steps) - 1 - 2 * many)
        shown = range(max(0, first), min(max(0, first) + 2 * many + 1, self._end))
        return [self._line(i)[:width] for i in shown]

    @property
    def _end(self) -> int:
        return len(self._steps)

    def _line(self, place: int) -> str:
        step = self._steps[place]
        mark = ">" if place == self.place else "*" if step.news or step.strays else " "
        number = step.shadow.events
        return f"{mark}{number:6} {step.at / 1e6:10.6f} s  {_sentence(step.event)}"

    @staticmethod
    def _told(step: Step) -> list[str]:
        return [f"  then {_sentence(entry)}" for entry in step.told]

    def _both(self, step: Step) -> list[str]:
        """Set what was beside what would be, or once if they are the same policy."""
        shadow = step.shadow
        was = [_gate(step.gate), _state(step.verdict)]
        is_ = [_gate(shadow.gate), _state(shadow.verdict)]
        if shadow.policy == self._recorded and not step.strays:
            return ["", *is_]
        name = shadow.policy if shadow.policy != self._recorded else "now"
        size = max(len(self._recorded), len(name))
        return [
            "",
            *(f"{self._recorded:{size}}  {line}" for line in was),
            *(f"{name:{size}}  {line}" for line in is_),
            *_worth(step),
        ]

    @staticmethod
    def _news(step: Step) -> list[str]:
        news = [f"* {narrate.sentence(event)}" for event in step.news]
        return [*news, *([f"* strays: {step.strays}"] if step.strays else [])]


def _sentence(entry: Entry) -> str:
    if isinstance(entry, Concluded):
        return "the session is over"
    return narrate.sentence(entry)


def _gate(gate: Gate) -> str:
    reason = f" ({gate.reason})" if gate.reason else ""
    return f"gate   shows {gate.num_pages}, {_power(gate)}{reason}"


def _power(gate: Gate) -> str:
    reclaim = "reclaims" if gate.reclaim else "does not reclaim"
    return f"{reclaim}, targets {gate.targets.value}"


def _state(verdict: Verdict) -> str:
    defects = ", ".join(defect.value for defect in verdict.defects)
    found = f": the driver {defects}" if defects else ""
    return f"state  {verdict.state} ({verdict.judgement.value}){found}"


def _worth(step: Step) -> list[str]:
    guesses = step.shadow.guesses
    if guesses is None:
        return []
    return [f"a guess since event {guesses.at}: {guesses.why}"]


def _evidence(verdict: Verdict, width: int, room: int) -> list[str]:
    """Return the evidence, the newest of it if there is not room for all."""
    items = [f"- {item.event}: {item.shows}" for item in verdict.evidence]
    lines = _wrapped(items, width)
    room -= len(_HEADING)
    if not lines or room <= 0:
        return []
    return [*_HEADING, *lines[-room:]]


def _wrapped(lines: Sequence[str], width: int) -> list[str]:
    return [
        part
        for line in lines
        for part in textwrap.wrap(line, width, subsequent_indent="    ") or [""]
    ]
