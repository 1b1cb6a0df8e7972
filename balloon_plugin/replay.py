"""Replay: a trace, run against a policy.

The policy is a shadow of the recording: it sees every event, and where it would have
acted otherwise than the policy that was recorded, that is marked. Run against the same
policy, a trace leads to the same gates, verdicts and evidence, or the policy is not the
same any more; then the first event where it strays is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from balloon_plugin.events import (
    ActualWritten,
    DeviceReset,
    DriverReady,
    Event,
    FeaturesAcked,
    Gate,
    GateChanged,
    Judgement,
    PagesDeflated,
    PagesInflated,
    PolicyChanged,
    StateLoaded,
    StatsReceived,
    TargetAnswered,
    TargetRequested,
    Verdict,
    VerdictChanged,
)
from balloon_plugin.shadow import Shadow, ShadowStatus, is_policy_event
from balloon_plugin.trace.lines import Concluded, Entry, Header, Moment

__all__ = ["Replayed", "Session", "Step", "conclude", "replay"]

_DRIVER: Final = (
    FeaturesAcked,
    DriverReady,
    ActualWritten,
    PagesInflated,
    PagesDeflated,
    StatsReceived,
)
"""What only a driver does; to read a target it takes none."""


@dataclass(frozen=True, slots=True)
class Step:
    """One event that policies observe, and all that came of it.

    :ivar at: microseconds since the first event.
    :ivar event: the event.
    :ivar told: what the recording tells of its consequences.
    :ivar gate: the gate that held after it, of the policy that was recorded.
    :ivar verdict: what that policy had concluded, as far as it was told.
    :ivar shadow: what the policy of the replay makes of it.
    :ivar news: where it diverges, guesses or fails.
    :ivar strays: how it differs from the recording though it is the same policy, a
        sentence, or an empty text.
    """

    at: int
    event: Event
    told: tuple[Entry, ...]
    gate: Gate
    verdict: Verdict
    shadow: ShadowStatus
    news: tuple[Event, ...]
    strays: str


@dataclass(frozen=True, slots=True)
class Session:
    """One driver session of a trace: from reset to reset, with a driver in it.

    :ivar first: number of its first event, counted from 1 among all.
    :ivar last: number of its last event.
    :ivar recorded: what the recorded policy had concluded at its end.
    :ivar shadow: what the policy of the replay had.
    """

    first: int
    last: int
    recorded: Verdict
    shadow: ShadowStatus

    def as_dict(self) -> dict[str, Any]:
        """Return the session as a flat record, for JSON and tables."""
        return {
            "first": self.first,
            "last": self.last,
            "recorded": self.recorded.judgement.value,
            "recorded_state": self.recorded.state,
            **self.shadow.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a replay.

    :ivar policy: the policy of the replay, with its options.
    :ivar recorded: the policy that was recorded.
    :ivar events: how many events policies observe.
    :ivar seconds: how long the recording is.
    :ivar sessions: the driver sessions in it.
    :ivar divergences: how often it began to differ from the recorded policy.
    :ivar strays: as in a :class:`Step`, of the first that does.
    """

    policy: str
    recorded: str
    events: int
    seconds: float
    sessions: tuple[Session, ...]
    divergences: int
    strays: str

    @property
    def faithful(self) -> bool | None:
        """Whether the same policy came to the same; ``None`` for another one."""
        return not self.strays if self.policy == self.recorded else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as a value that JSON can carry."""
        sessions = [session.as_dict() for session in self.sessions]
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {**plain, "faithful": self.faithful, "sessions": sessions}


_PLAIN: Final = ("policy", "recorded", "events", "seconds", "divergences", "strays")


# --- step by step -------------------------------------------------------------------


def replay(
    header: Header, moments: Iterable[Moment], policy: str | object | None = None
) -> Iterator[Step]:
    """Run a trace against a policy, and yield what each event leads to.

    :param header: of the trace.
    :param moments: what is in it, as from :func:`balloon_plugin.trace.lines.decode`.
    :param policy: a policy's name with options or an object; if ``None``, the one that
        was recorded.
    :raises PluginError: if the policy cannot be made.
    :raises HostError: from ``moments``.
    """
    run = _Run(header, header.policy if policy is None else policy)
    for scene in _scenes(moments):
        yield run.play(scene)


def _scenes(moments: Iterable[Moment]) -> Iterator[list[Moment]]:
    """Put each event that policies observe together with what came of it."""
    scene: list[Moment] = []
    for moment in moments:
        if _begins(moment.entry, scene) and scene:
            yield scene
            scene = []
        scene.append(moment)
    if scene:
        yield scene


def _begins(entry: Entry, scene: list[Moment]) -> bool:
    if isinstance(entry, TargetAnswered):
        asked = scene and isinstance(scene[0].entry, TargetRequested)
        return entry.asked is not None and not asked
    return isinstance(entry, StateLoaded) or is_policy_event(entry)


class _Run:
    """A shadow that is shown a recording."""

    def __init__(self, header: Header, policy: str | object) -> None:
        self._news: list[Event] = []
        self._shadow = Shadow(
            policy, offered=lambda: header.offers, tell=self._news.append
        )
        self._same = self._shadow.policy == header.policy
        self._gate = self._shadow.status().gate
        self._verdict = Verdict(Judgement.UNDECIDED, "")

    def play(self, scene: list[Moment]) -> Step:
        """Show the shadow an event, and look at both sides."""
        self._news.clear()
        concluded = []
        for moment in scene:
            match moment.entry:
                case GateChanged(gate=gate):
                    self._gate = gate
                case PolicyChanged():
                    # What follows is another policy's, whatever the header says.
                    self._same = False
                case VerdictChanged(verdict=verdict) | Concluded(verdict=verdict):
                    self._verdict = verdict
                    concluded.append(verdict)
            if not isinstance(moment.entry, Concluded):
                self._shadow.balloon_event(moment.entry)
        self._shadow.settle()
        status = self._shadow.status()
        first, *told = scene
        return Step(
            at=first.at,
            event=first.entry,  # type: ignore[arg-type] # a scene begins with one
            told=tuple(moment.entry for moment in told),
            gate=self._gate,
            verdict=self._verdict,
            shadow=status,
            news=tuple(self._news),
            strays=self._strays(status, concluded) if self._same else "",
        )

    def _strays(self, status: ShadowStatus, concluded: list[Verdict]) -> str:
        """Say how the same policy does not come to the same."""
        if status.gate != self._gate and not self._shadow.inhibited:
            return f"the gate was {self._gate}, and is {status.gate}"
        own, recorded = status.verdict, self._verdict
        if own != recorded if concluded else _conclusion(own) != _conclusion(recorded):
            return f"the verdict was {recorded}, and is {own}"
        return ""


def _conclusion(verdict: Verdict) -> tuple[object, ...]:
    """Return what is told when it changes; evidence alone is not."""
    return verdict.judgement, verdict.state, verdict.defects


# --- as a whole ---------------------------------------------------------------------


def conclude(header: Header, steps: Iterable[Step]) -> Replayed:
    """Return what comes of all steps of a replay."""
    tally = _Tally()
    for step in steps:
        tally.add(step)
    return tally.result(header)


class _Tally:
    """Folds steps into sessions."""

    def __init__(self) -> None:
        self._sessions: list[Session] = []
        self._last: Step | None = None
        self._first = 1
        self._driver = False
        self._strays = ""

    def add(self, step: Step) -> None:
        """Take a step; a reset ends the session before it."""
        if isinstance(step.event, DeviceReset):
            self._end_session()
            self._first = step.shadow.events
        self._driver |= isinstance(step.event, _DRIVER)
        if step.strays and not self._strays:
            self._strays = f"event {step.shadow.events}: {step.strays}"
        self._last = step

    def _end_session(self) -> None:
        if self._driver and self._last is not None:
            last, shadow = self._last, self._last.shadow
            self._sessions.append(
                Session(self._first, shadow.events, last.verdict, shadow)
            )
        self._driver = False

    def result(self, header: Header) -> Replayed:
        """Return the whole."""
        self._end_session()
        last = self._last
        return Replayed(
            policy=last.shadow.policy if last else header.policy,
            recorded=header.policy,
            events=last.shadow.events if last else 0,
            seconds=last.at / 1e6 if last else 0.0,
            sessions=tuple(self._sessions),
            divergences=last.shadow.divergences if last else 0,
            strays=self._strays,
        )
