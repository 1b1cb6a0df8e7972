"""What reports of all kinds have: confusion matrices, and guests with timelines."""

from __future__ import annotations

import functools
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from balloon_plugin.compare import Row
from balloon_plugin.events import Judgement
from balloon_plugin.report.drawings import draw_timelines
from balloon_plugin.report.page import Cell, Items, Picture, Section, Table
from balloon_plugin.report.pictures import picture
from balloon_plugin.report.timeline import Timeline

__all__ = ["compare_command", "confusion", "guest"]

_VERDICTS: Final = [each.value for each in Judgement]

_TRUTHS: Final = {
    Judgement.GOOD.value: "is good",
    Judgement.BUGGY.value: "is buggy",
    Judgement.UNDECIDED.value: "is not there",
}

READ_TIMELINES: Final = (
    "Each policy saw the same guest. The dashed line is the target that the driver was "
    "shown, the solid one what it said is in its balloon (actual), the area what the "
    "host holds back; all in pages of 4 KiB, on a scale that is logarithmic above 16. "
    "Below are the policy's states: green while it believed the driver, red while it "
    "did not, grey while it did not know. Numbers mark the moment at which evidence "
    "came."
)
"""How to read the pictures of guests."""


def confusion(counted: Iterable[tuple[Row, int]]) -> Iterator[Table]:
    """Yield for each policy how often each truth met each verdict.

    :param counted: rows, each with the number of guests that it stands for.
    """
    counts: dict[str, Counter[tuple[str, str]]] = {}
    for row, count in counted:
        counts.setdefault(row.policy, Counter())[row.truth, row.verdict] += count
    met = [
        truth
        for truth in _TRUTHS
        if any(pair[0] == truth for each in counts.values() for pair in each)
    ]
    for policy, pairs in counts.items():
        rows = [
            (
                Cell(_TRUTHS[truth]),
                *(_count(pairs[truth, each], truth, each) for each in _VERDICTS),
            )
            for truth in met
        ]
        yield Table(policy, ("driver", *_VERDICTS), rows, "small")


def _count(count: int, truth: str, verdict: str) -> Cell:
    mood = "good" if truth == verdict else "buggy"
    return Cell(f"{count:,}", mood=mood) if count else Cell("-")


def guest(
    number: int,
    title: str,
    text: str,
    timelines: Sequence[Timeline],
    command: str,
) -> Section:
    """Return what became of one guest under each policy.

    :param number: of the guest in its report, from 1; with the first it is said how to
        read pictures.
    :param title: which guest.
    :param text: why it is shown.
    :param timelines: one for each policy.
    :param command: what shows the same, event by event.
    """
    alt = f"{title}. " + " ".join(_told(each) for each in timelines)
    drawn = picture(
        f"guest-{number}", alt, functools.partial(draw_timelines, timelines)
    )
    evidence = [
        Items(f"Evidence of {each.policy}", _evidence(each))
        for each in timelines
        if each.findings
    ]
    texts = (READ_TIMELINES,) if number == 1 else ()
    return Section(title, texts, (Picture(text, drawn), *evidence), command)


def compare_command(guest: str, circumstance: str, policies: Sequence[str]) -> str:
    """Return the command that puts one guest under policies again."""
    options = [word for policy in policies for word in ("--policy", policy)]
    words = ("--guest", guest, "--circumstance", circumstance, *options)
    return shlex.join(("balloon-plugin", "compare", *words))


def _told(timeline: Timeline) -> str:
    """Return in words what a picture shows of one policy."""
    states = ", then ".join(span.state for span in timeline.spans) or "no state"
    last = timeline.levels[-1]
    asks = "; ".join(
        f"asked for {ask.num_pages} pages: {ask.answer.value}" for ask in timeline.asks
    )
    return (
        f"Under {timeline.policy} it was {states}; {asks or 'nothing was asked for'}; "
        f"in the end the target was {last.target}, actual {last.actual}, and the host "
        f"held {last.reclaimed} pages; {timeline.outcome}."
    )


def _evidence(timeline: Timeline) -> list[str]:
    return [
        f"{_moment(timeline, finding.at)}: {finding.evidence.event}: "
        f"{finding.evidence.shows}"
        for finding in timeline.findings
    ]


def _moment(timeline: Timeline, at: float) -> str:
    if timeline.is_by_steps:
        return f"step {at:.0f}"
    return f"{at:.3f} s"
