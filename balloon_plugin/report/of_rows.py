"""The report of a comparison: rows of guests under policies."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Final

from balloon_plugin.compare import Row
from balloon_plugin.compare.circumstances import find as find_circumstance
from balloon_plugin.compare.report import LEGEND, MATRIX_LEGEND
from balloon_plugin.compare.tally import HEADS, Tally, command, tally
from balloon_plugin.guests.profiles import find as find_guest
from balloon_plugin.report.page import Cell, Page, Section, Table
from balloon_plugin.report.parts import compare_command, confusion, guest
from balloon_plugin.report.timeline import run_timeline

__all__ = ["rows_page"]

DRAWN: Final = 12
"""Guests up to which all are drawn; of more only the worst of each policy."""

LISTED: Final = 400
"""Rows up to which all are listed, for the same reason: nobody reads more."""


def rows_page(rows: Sequence[Row], words: Sequence[str]) -> Page:
    """Return the report of a comparison.

    :param rows: each guest in each circumstance under each policy.
    :param words: the command that made it.
    """
    tallies = tally(rows)
    cases = list(dict.fromkeys((row.guest, row.circumstance) for row in rows))
    policies = [each.policy for each in tallies]
    return Page(
        title=_title(cases, policies),
        about="Each guest was put under each policy in a simulation, with memory that "
        "really exists. The truth about a guest comes with it, never from a policy.",
        advice=(),
        reasons=[_did(each) for each in tallies],
        command=shlex.join(words),
        sections=[
            _counts(tallies),
            Section(
                "Truth and verdict",
                ("Runs by what the driver is (down) and the verdict (across).",),
                tuple(confusion((row, 1) for row in rows)),
            ),
            *_guests(cases if len(cases) <= DRAWN else _worst(tallies), policies),
            _list(rows if len(rows) <= LISTED else _failures(tallies)),
            Section("What the words mean", [*LEGEND.splitlines(), *_matrix_legend()]),
        ],
    )


def _title(cases: Sequence[tuple[str, str]], policies: Sequence[str]) -> str:
    guests = dict.fromkeys(name for name, _ in cases)
    who = next(iter(guests)) if len(guests) == 1 else f"{len(guests)} guests"
    what = policies[0] if len(policies) == 1 else f"{len(policies)} policies"
    return f"{who} under {what}"


def _did(each: Tally) -> str:
    harmed, unusable = each.counts["harmed"].runs, each.counts["unusable"].runs
    return (
        f"`{each.policy}` was right in {each.right} of {each.runs} runs, harmed a "
        f"guest in {harmed}, and left a balloon unusable in {unusable}."
    )


def _counts(tallies: Sequence[Tally]) -> Section:
    rows = [[Cell(text) for text in each.cells()] for each in tallies]
    table = Table("Runs of each policy, and how often each failed", HEADS, rows)
    return Section("What each policy did", (), (table,))


def _worst(tallies: Sequence[Tally]) -> list[tuple[str, str]]:
    """Return the worst case of each policy and failure."""
    failures = _failures(tallies)
    return list(dict.fromkeys((row.guest, row.circumstance) for row in failures))[
        :DRAWN
    ]


def _failures(tallies: Sequence[Tally]) -> list[Row]:
    return [row for each in tallies for _, row in each.worst()]


def _guests(
    cases: Sequence[tuple[str, str]], policies: Sequence[str]
) -> Iterator[Section]:
    for number, (name, circumstance) in enumerate(cases, 1):
        profile, special = find_guest(name), find_circumstance(circumstance)
        yield guest(
            number,
            name if circumstance == "usual" else f"{name}, {circumstance}",
            f"Its driver is {profile.truth.value}.",
            [run_timeline(profile, policy, special) for policy in policies],
            compare_command(name, circumstance, policies),
        )


def _list(rows: Sequence[Row]) -> Section:
    table = Table(
        "Runs",
        ("guest", "policy", "verdict", "harm", "taken", "usable", "see it"),
        [_listed(row) for row in rows],
        "cards",
    )
    return Section("Every run that is told of", (), (table,))


def _listed(row: Row) -> tuple[Cell, ...]:
    return (
        Cell(row.guest, "" if row.circumstance == "usual" else row.circumstance),
        Cell(row.policy),
        Cell(row.verdict, f"is {row.truth}", mood="good" if row.right else "buggy"),
        Cell(f"{row.harm_pages or '-'}", mood="buggy" if row.harm_pages else ""),
        Cell(f"{row.taken_pages or '-'}"),
        Cell("yes" if row.usable else "no"),
        Cell(command(row), is_code=True),
    )


def _matrix_legend() -> list[str]:
    told = {line.partition(":")[0] for line in LEGEND.splitlines()}
    lines = MATRIX_LEGEND.splitlines()
    return [line for line in lines if line.partition(":")[0] not in told]
