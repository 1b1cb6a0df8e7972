"""What one policy did to one guest, moment by moment, as values. Draws nothing.

Made from events, and so the same for a simulated run and a recorded one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from balloon_plugin import core, events
from balloon_plugin.compare import run
from balloon_plugin.compare.circumstance import Circumstance
from balloon_plugin.events import (
    Answer,
    Event,
    Evidence,
    Gate,
    Judgement,
    Run,
    Verdict,
)
from balloon_plugin.guests.traits import GuestProfile
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.pages import merge
from balloon_plugin.report.held import Held

__all__ = [
    "Ask",
    "Finding",
    "Level",
    "Span",
    "Timed",
    "Timeline",
    "run_timeline",
    "timeline",
]

Timed: TypeAlias = tuple[float, Event]
"""An event and when it happened: seconds, or steps of the guest."""

STEPS: Final = "steps of the driver"
SECONDS: Final = "seconds"


@dataclass(frozen=True, slots=True)
class Level:
    """How things stood from a moment on, in pages of 4 KiB.

    :ivar at: the moment.
    :ivar target: what the driver would read as its target.
    :ivar actual: what it last said is in its balloon.
    :ivar reclaimed: what the host holds back.
    """

    at: float
    target: int = 0
    actual: int = 0
    reclaimed: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """A state of the policy.

    :ivar at: when it began; it ended with the next one.
    :ivar state: the policy's own name for it.
    :ivar judgement: what it thought of the driver then.
    """

    at: float
    state: str
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class Finding:
    """A piece of evidence, and when it came."""

    at: float
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Ask:
    """The user asked for a balloon.

    :ivar at: when.
    :ivar num_pages: for how many pages.
    :ivar answer: what he was told.
    """

    at: float
    num_pages: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class Timeline:
    """What one policy did to one guest.

    :ivar policy: the policy with its options.
    :ivar levels: targets and pages, whenever one of them changed.
    :ivar spans: the policy's states, one after the other.
    :ivar findings: its evidence.
    :ivar asks: what the user asked for.
    :ivar end: the last moment.
    :ivar unit: of moments.
    :ivar outcome: what came of it, in a few words.
    """

    policy: str
    levels: tuple[Level, ...]
    spans: tuple[Span, ...]
    findings: tuple[Finding, ...]
    asks: tuple[Ask, ...]
    end: float
    unit: str = SECONDS
    outcome: str = ""

    @property
    def is_by_steps(self) -> bool:
        """Whether moments are counted, not timed."""
        return self.unit == STEPS


def timeline(
    policy: str,
    happened: Iterable[Timed],
    *,
    unit: str = SECONDS,
    outcome: str = "",
) -> Timeline:
    """Return a timeline of events.

    :param policy: the policy with its options.
    :param happened: all events of one device in order, each with its moment.
    :param unit: of moments: ``STEPS`` or ``SECONDS``.
    :param outcome: what came of it, in a few words.
    """
    draft = _Draft()
    for at, event in happened:
        draft.see(at, event)
    return draft.finish(policy, unit, outcome)


def run_timeline(
    profile: GuestProfile, policy: str, circumstance: Circumstance
) -> Timeline:
    """Run a simulated guest under a policy, and return how it went."""
    recorder = _Recorder()
    row = run(profile, policy, circumstance, (recorder,), recorder.tell)
    outcome = f"{row.verdict}, {'right' if row.right else 'wrong'}"
    if row.harm_pages:
        outcome += f"; {row.harm_pages} pages harmed"
    elif row.usable_at_best:
        outcome += f"; {'usable' if row.usable else 'unusable'}"
    return timeline(policy, recorder.happened, unit=STEPS, outcome=outcome)


class _Recorder:
    """Takes every event with the number of the guest's step.

    The runner tells of each event in words, with the step, right after observers saw
    the event itself.
    """

    def __init__(self) -> None:
        self.happened: list[Timed] = []
        self._asks = 0
        self._new: list[Event] = []

    @hookimpl
    def balloon_event(self, event: Event) -> None:
        self._new.append(event)

    def tell(self, _now: float, steps: int, _what: str) -> None:
        for event in self._new:
            self.happened.append((steps + self._asks, event))
            # What the user does is a step too, or he would ask twice at once.
            self._asks += isinstance(event, events.TargetAnswered)
        self._new.clear()


class _Draft:
    """A timeline that is being made."""

    def __init__(self) -> None:
        self._at = 0.0
        self._levels = [Level(0.0)]
        self._spans: list[Span] = []
        self._findings: list[Finding] = []
        self._asks: list[Ask] = []
        self._told = 0
        self._gate: Gate | None = None
        self._held = Held()

    def see(self, at: float, event: Event) -> None:
        """Note one event."""
        self._at = at
        match event:
            case events.GateChanged(gate):
                self._gate = gate
                self._change(target=gate.num_pages)
            case events.ActualWritten(actual):
                self._change(actual=actual)
            case events.PagesReclaimed(_, runs):
                for first, count in runs:
                    self._held.add(first, count)
                self._change(reclaimed=self._held.pages)
            case events.PagesDeflated(pfns):
                for first, count in self._runs(pfns):
                    self._held.remove(first, count)
                self._change(reclaimed=self._held.pages)
            case events.DeviceReset():
                self._held.clear()
                self._told = 0
                self._change(actual=0, reclaimed=0)
            case events.TargetAnswered(reply, asked) if asked is not None:
                self._asks.append(Ask(at, asked, reply.answer))
            case events.VerdictChanged(verdict):
                self._conclude(verdict)

    def _change(self, **levels: int) -> None:
        before = self._levels[-1]
        now = replace(before, at=self._at, **levels)
        if now != replace(before, at=self._at):
            self._levels.append(now)

    def _runs(self, pfns: tuple[int, ...]) -> list[Run]:
        """Return the pages that a driver means, as the gate reads it."""
        if self._gate is None:
            return []
        size = self._gate.translation.pages_per_pfn
        numbers = core.translate(pfns[: self._gate.entries], self._gate.translation)
        return [(first * size, count * size) for first, count in merge(numbers)]

    def _conclude(self, verdict: Verdict) -> None:
        self._findings += [
            Finding(self._at, item) for item in verdict.evidence[self._told :]
        ]
        self._told = len(verdict.evidence)
        span = Span(self._at, verdict.state, verdict.judgement)
        last = self._spans[-1] if self._spans else None
        if last is None or last != replace(span, at=last.at):
            self._spans.append(span)

    def finish(self, policy: str, unit: str, outcome: str) -> Timeline:
        """Return what was noted."""
        return Timeline(
            policy,
            tuple(self._levels),
            tuple(self._spans),
            tuple(self._findings),
            tuple(self._asks),
            self._at,
            unit,
            outcome,
        )
