"""The report of a replay: a recording under the policies that it was run against."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from balloon_plugin import narrate
from balloon_plugin.events import (
    GateChanged,
    PagesReclaimed,
    TargetAnswered,
    VerdictChanged,
)
from balloon_plugin.replay import Replayed, Step
from balloon_plugin.report.page import Cell, Page, Section, Table
from balloon_plugin.report.parts import guest
from balloon_plugin.report.timeline import Timed, Timeline, timeline
from balloon_plugin.trace import Header

__all__ = ["replay_page"]


def replay_page(
    header: Header,
    replays: Sequence[tuple[Replayed, Sequence[Step]]],
    words: Sequence[str],
) -> Page:
    """Return the report of a recording under several policies.

    :param header: of the trace.
    :param replays: for each policy what came of its replay, and the steps of it.
    :param words: the command that made it.
    """
    name = header.guest or "a guest"
    command = shlex.join(words)
    section = guest(
        1,
        f"{name}, moment by moment",
        "What the driver did, what the user asked for and what the host held are as "
        f"recorded under {header.policy}; targets, states and evidence are those of "
        "each policy. The scale is of moments, not of time; marks below say when.",
        [_timeline(replayed, steps) for replayed, steps in replays],
        command,
    )
    return Page(
        title=f"{name}, recorded under {header.policy}",
        about=f"A recording of {replays[0][0].seconds:.1f} s, run against "
        + ", ".join(replayed.policy for replayed, _ in replays)
        + ".",
        advice=(),
        reasons=[_said(replayed) for replayed, _ in replays],
        command=command,
        sections=[_sessions([replayed for replayed, _ in replays]), section],
    )


def _said(replayed: Replayed) -> str:
    """Return how a policy compares with the one that was recorded."""
    name = f"`{replayed.policy}`"
    if replayed.faithful:
        return f"{name} comes to the same as it did when it was recorded."
    if replayed.faithful is False:
        return f"{name} does not come to the same as it did. {replayed.strays}"
    if not replayed.divergences:
        return f"{name} would have done the same throughout."
    return f"{name} would have done otherwise {replayed.divergences} times."


def _sessions(replays: Sequence[Replayed]) -> Section:
    rows = []
    for replayed in replays:
        for session in replayed.sessions:
            shadow = session.shadow
            told = [each for each in (shadow.diverged, shadow.guesses) if each]
            rows.append(
                (
                    Cell(replayed.policy),
                    Cell(f"{session.first}-{session.last}"),
                    Cell(shadow.verdict.judgement.value, shadow.verdict.state),
                    Cell(session.recorded.judgement.value, session.recorded.state),
                    Cell("; ".join(map(narrate.sentence, told)) or "-"),
                )
            )
    heads = ("policy", "events", "verdict", "recorded", "what is different")
    return Section(
        "Driver sessions", (), (Table("From reset to reset", heads, rows, "cards"),)
    )


def _timeline(replayed: Replayed, steps: Sequence[Step]) -> Timeline:
    outcome = "no driver showed itself"
    if replayed.sessions:
        last = replayed.sessions[-1].shadow.verdict
        outcome = f"{last.judgement.value}, {last.state}"
    return timeline(replayed.policy, _happened(steps), outcome=outcome)


def _happened(steps: Sequence[Step]) -> Iterator[Timed]:
    """Yield what was recorded, and what the policy of the replay made of it."""
    gate = verdict = None
    for step in steps:
        at = step.at / 1_000_000
        yield at, step.event
        for entry in step.told:
            if isinstance(entry, PagesReclaimed | TargetAnswered):
                yield at, entry
        if step.shadow.gate != gate:
            gate = step.shadow.gate
            yield at, GateChanged(gate)
        if step.shadow.verdict != verdict:
            verdict = step.shadow.verdict
            yield at, VerdictChanged(verdict)
