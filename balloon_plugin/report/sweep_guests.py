"""The guests of a sweep that its report shows: why these, and what became of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from balloon_plugin.compare.circumstances import find as find_circumstance
from balloon_plugin.compare.tally import command
from balloon_plugin.guests.profiles import find as find_guest
from balloon_plugin.report.page import Cell, Section, Table
from balloon_plugin.report.parts import compare_command, guest
from balloon_plugin.report.timeline import run_timeline
from balloon_plugin.sweep import Decision, Result
from balloon_plugin.sweep.measures import HARMED, UNUSABLE, Measure
from balloon_plugin.sweep.result import Outcome

__all__ = ["failures", "guests", "ranked"]

LISTED: Final = 8
"""Failures of each policy that are listed, the most frequent ones."""


def ranked(decision: Decision) -> list[str]:
    """Return all policies, the choices first."""
    return [*decision.choices, *(each.policy for each in decision.outsiders)]


def guests(result: Result, decision: Decision) -> Iterator[Section]:
    """Yield what became of some guests, each for another reason."""
    reasons: dict[int, str] = {}
    found: dict[int, Outcome] = {}
    for why, outcome in _examples(result, decision):
        reasons.setdefault(id(outcome), why)
        found[id(outcome)] = outcome
    for number, (key, outcome) in enumerate(found.items(), 1):
        case = outcome.lot.case
        profile = find_guest(case.guest)
        circumstance = find_circumstance(case.circumstance)
        yield guest(
            number,
            f"{outcome.lot.kind}: {case.guest}, {case.circumstance}",
            f"{reasons[key]}; {outcome.lot.count / result.runs:.2%} of those drawn.",
            [run_timeline(profile, policy, circumstance) for policy in result.policies],
            compare_command(case.guest, case.circumstance, result.policies),
        )


def _examples(result: Result, decision: Decision) -> Iterator[tuple[str, Outcome]]:
    """Yield guests that are worth a look: what the choices cost, who is harmed."""
    for policy in ranked(decision):
        harmed = _most_frequent(result, policy, HARMED)
        if harmed:
            yield f"The most frequent guest that {policy} harms", harmed
        unusable = _most_frequent(result, policy, UNUSABLE)
        if unusable and policy in decision.choices:
            yield f"The most frequent guest whose balloon {policy} spoils", unusable


def _most_frequent(result: Result, policy: str, measure: Measure) -> Outcome | None:
    at = result.policies.index(policy)
    failed = [one for one in result.outcomes if measure.of(one.rows[at])]
    return max(failed, key=lambda one: one.lot.count, default=None)


def failures(result: Result, policies: Sequence[str]) -> Section:
    """Return the most frequent ways in which policies went wrong."""
    text = (
        f"Of each policy the {LISTED} most frequent ways to harm a guest or to be "
        "wrong about it, with the command that shows it event by event."
    )
    table = Table(
        "Failures",
        ("policy", "guests", "verdict", "harm", "guest and circumstance", "see it"),
        [row for policy in policies for row in _failures(result, policy)],
        "cards",
    )
    return Section("What went wrong most often", (text,), (table,))


def _failures(result: Result, policy: str) -> Iterator[tuple[Cell, ...]]:
    at = result.policies.index(policy)
    failed = [
        one
        for one in result.outcomes
        if HARMED.of(one.rows[at]) or not one.rows[at].right
    ]
    failed.sort(key=lambda one: -one.lot.count)
    for outcome in failed[:LISTED]:
        row = outcome.rows[at]
        yield (
            Cell(policy),
            Cell(f"{outcome.lot.count / result.runs:.2%}"),
            Cell(row.verdict, f"is {row.truth}", mood="" if row.right else "buggy"),
            Cell(f"{row.harm_pages} pages" if row.harm_pages else "-"),
            Cell(row.guest, row.circumstance),
            Cell(command(row), is_code=True),
        )
