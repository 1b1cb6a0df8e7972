"""Fleets for tests, and rows that nobody had to run for."""

from __future__ import annotations

from balloon_plugin.compare import Row
from balloon_plugin.compare.cases import Case
from balloon_plugin.sweep.draws import Lot
from balloon_plugin.sweep.population import Class, Population
from balloon_plugin.sweep.result import Outcome, Result

SMALL = """\
title = "two kinds"
about = "made up"

[circumstances.memory]
usual = 3
low-memory-10 = 1

[circumstances.place]
usual = 1
scattered = 1

[[class]]
guest = "linux-3.4-be-4k"
weight = 2

[[class]]
name = "old"
guest = "linux-3.3-be-4k"
weight = 1
about = "the endian bug"

[class.circumstances.event]
usual = 1
"retarget-in-full" = 1
"""
"""A fleet that is run in a second."""


def row(policy, *, right=True, harm=0, usable=True, taken=0, guest="linux-3.4-be-4k"):
    """Return what a run of a good guest could have given."""
    return Row(
        guest=guest,
        circumstance="usual",
        policy=policy,
        judged=guest,
        truth="good",
        verdict="good" if right else "buggy",
        state="",
        harm_pages=harm,
        taken_pages=taken,
        parked_pages=0,
        steps=1,
        usable=usable,
        usable_at_best=True,
        taken_page_seconds=taken,
    )


def result(policies, *groups):
    """Return a result of groups: a class, how many guests, and a row for each policy.

    A row is given as the arguments of :func:`row`.
    """
    names = dict.fromkeys(name for name, _, _ in groups)
    classes = tuple(Class(name, "linux-3.4-be-4k", 1, "", ()) for name in names)
    case = Case("linux-3.4-be-4k", "usual")
    outcomes = tuple(
        Outcome(
            Lot(name, case, count),
            tuple(row(*one, **more) for *one, more in zip(policies, rows, strict=True)),
        )
        for name, count, rows in groups
    )
    runs = sum(count for _, count, _ in groups)
    fleet = Population("made-up", "made up", "", classes)
    return Result(fleet, runs, 1, tuple(policies), outcomes)
