"""What is known of a running guest, from all that happened so far.

Takes happenings and answers questions; tells what a person should hear of at once.
Knows no clock, process or device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from balloon_plugin.boot.guest import (
    Broken,
    Ended,
    GuestReport,
    Happening,
    Heard,
    Seen,
    find_trouble,
    parse_report,
)
from balloon_plugin.boot.plan import Kind, pages
from balloon_plugin.core import translate_actual
from balloon_plugin.events import (
    ActualWritten,
    Answer,
    DriverReady,
    Event,
    Gate,
    GateChanged,
    GuestFault,
    Judgement,
    PluginFailed,
    TargetAnswered,
    TargetReply,
    Translation,
    Verdict,
    VerdictChanged,
)

__all__ = ["WANTED", "View"]

MAX_FAULTS: Final = 5
"""Faults that are told: a bad driver can make one with every buffer."""

LARGEST_PAGE: Final = 64
"""4 KiB pages in the largest page of a guest's kernel (256 KiB)."""

TESTED: Final = 4096
"""4 KiB pages (16 MiB) beyond its target that a driver may take while it is tested."""

LAST_WORDS: Final = 3
"""Lines of the console that tell why a guest died, where its kernel does not."""

WANTED: Final = (
    ActualWritten,
    DriverReady,
    GateChanged,
    GuestFault,
    PluginFailed,
    TargetAnswered,
    VerdictChanged,
)
"""The events that a view learns from: none of those that come by the thousand."""


class View:
    """The newest state of everything, and what to say about each change.

    :ivar booted: whether the guest obeys commands.
    :ivar reply: its answer to the last command, without the mark.
    :ivar failure: that answer, if it was an error number, or said that it failed.
    :ivar report: its numbers after that answer, ``None`` until they come.
    :ivar newest: the newest numbers, whatever they follow, ``None`` before the first.
    :ivar trouble: what befell its kernel, ``None`` while nothing has.
    :ivar ended: the exit status of its process, ``None`` while it runs.
    :ivar driver_ready: whether the driver set DRIVER_OK.
    :ivar gate: what the policy allows now, ``None`` before it said anything.
    :ivar refusal: why a target was refused, ``None`` if none was.
    :ivar states: the policy's states, in order.
    """

    def __init__(self) -> None:
        self.booted = False
        self.reply: str | None = None
        self.failure: str | None = None
        self.report: GuestReport | None = None
        self.newest: GuestReport | None = None
        self.trouble: str | None = None
        self.ended: int | None = None
        self.driver_ready = False
        self.gate: Gate | None = None
        self.refusal: str | None = None
        self.states: list[str] = []
        self._written = 0
        self._faults = 0
        self._lines: deque[str] = deque(maxlen=LAST_WORDS)

    @property
    def last_words(self) -> str:
        """What the guest's console says about its end."""
        return " / ".join(self._lines) or "it said nothing"

    @property
    def actual(self) -> int:
        """Pages in the balloon by the driver's own word, as the policy reads it."""
        how = self.gate.translation if self.gate is not None else Translation()
        return translate_actual(self._written, how)

    def forget_reply(self) -> None:
        """Expect a new answer and a new report."""
        self.reply = self.failure = self.report = None

    def holds(self, target: int) -> bool:
        """Return whether the balloon has this size, and not merely for a test.

        A guest takes whole pages of its own, so it may be up to one of these larger.
        """
        most = target + LARGEST_PAGE - 1 if target else 0
        return self._open and target <= self.actual <= most

    def exceeds(self, target: int) -> bool:
        """Return whether the driver takes more than a test and the target explain."""
        return self._open and self.actual > target + TESTED

    @property
    def _open(self) -> bool:
        return self.gate is not None and self.gate.targets is Answer.ACCEPTED

    def take(self, happening: Happening) -> Iterator[tuple[Kind, str]]:
        """Learn what happened; yield what to tell of it.

        :raises BaseException: that of a broken daemon.
        """
        match happening:
            case Heard(line=line):
                self._hear(line)
            case Seen(event=event):
                yield from self._see(event)
            case Ended(status=status):
                self.ended = status
            case Broken(error=error):
                raise error

    def _hear(self, line: str) -> None:
        self._lines.append(line)
        self.trouble = self.trouble or find_trouble(line)
        report = parse_report(line)
        self.newest = report or self.newest
        if line.startswith("GUEST ready"):
            self.booted = True
        elif report is None and line.startswith("GUEST "):
            self.reply = line.removeprefix("GUEST ")
            _, arrow, number = self.reply.rpartition("-> ")
            if (arrow and number != "0") or self.reply.endswith(" failed"):
                self.failure = self.reply
        elif self.reply is not None:
            # One before the reply is older than the command.
            self.report = report or self.report

    def _see(self, event: Event) -> Iterator[tuple[Kind, str]]:
        match event:
            case DriverReady():
                self.driver_ready = True
            case ActualWritten(actual=actual):
                self._written = actual
            case GateChanged(gate=gate):
                self.gate = gate
            case TargetAnswered(reply=reply):
                if reply.answer is Answer.REFUSED:
                    self.refusal = reply.reason
                yield Kind.BALLOON, _answer(reply)
            case VerdictChanged(verdict=verdict):
                if self.states[-1:] != [verdict.state]:
                    self.states.append(verdict.state)
                yield Kind.POLICY, _conclusion(verdict)
            case GuestFault(what=what) if self._faults < MAX_FAULTS:
                self._faults += 1
                yield Kind.PROBLEM, f"the driver broke the specification: {what}"
            case PluginFailed(plugin=plugin, error=error):
                yield Kind.PROBLEM, f"{plugin} failed: {error}"


def _answer(reply: TargetReply) -> str:
    refused = reply.answer is Answer.REFUSED
    what = "target" if refused else f"target of {pages(reply.requested)}"
    why = f": {reply.reason}" if reply.reason else ""
    return f"{what} {reply.answer.value}{why}"


def _conclusion(verdict: Verdict) -> str:
    """Return the state, the judgement and what they rest on, in a line."""
    text = verdict.state
    judgement = verdict.judgement.value
    if verdict.judgement is not Judgement.UNDECIDED and text.lower() != judgement:
        text += f" (the driver is {judgement})"
    if verdict.defects:
        text += f", it {' and '.join(defect.value for defect in verdict.defects)}"
    if verdict.evidence:
        newest = verdict.evidence[-1]
        text += f" - {newest.event}: {newest.shows.removesuffix('.')}"
    return text
