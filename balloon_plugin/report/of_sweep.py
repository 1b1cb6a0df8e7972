"""The report of a sweep."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterator, Sequence

from balloon_plugin.report.drawings import draw_rates
from balloon_plugin.report.page import Cell, Page, Picture, Section, Table
from balloon_plugin.report.parts import confusion
from balloon_plugin.report.pictures import picture
from balloon_plugin.report.sweep_guests import failures, guests, ranked
from balloon_plugin.sweep import Decision, Result, figures
from balloon_plugin.sweep.measures import (
    HARMED,
    MEASURES,
    RIGHT,
    UNUSABLE,
    Measure,
)
from balloon_plugin.sweep.summary import advice, legend, reasons

__all__ = ["sweep_page"]


def sweep_page(result: Result, decision: Decision, words: Sequence[str]) -> Page:
    """Return the report of a sweep.

    :param decision: what it says to do.
    :param words: the command that made it.
    """
    population = result.population
    return Page(
        title=f"Which policy for {population.title}?",
        about=f"{result.runs:,} guests were drawn from the population "
        f"{population.name} (seed {result.seed}), and each was put under every policy "
        f"in a simulation. {population.about}",
        advice=advice(result, decision),
        reasons=list(reasons(result, decision)),
        command=shlex.join(words),
        sections=[
            _rates(result, decision),
            *_differences(result, decision),
            _classes(result, decision),
            _matrices(result),
            *guests(result, decision),
            failures(result, ranked(decision)),
            _words(),
        ],
    )


def _rates(result: Result, decision: Decision) -> Section:
    policies = ranked(decision)
    rows = [
        (Cell(policy), *(_rate(result, policy, measure) for measure in MEASURES))
        for policy in policies
    ]
    panels = [
        (
            measure.name,
            [(policy, result.rate(policy, measure).estimate) for policy in policies],
        )
        for measure in (RIGHT, HARMED, UNUSABLE)
    ]
    alt = "; ".join(
        f"{title}: "
        + ", ".join(f"{name} {figures.percent(one, result.runs)}" for name, one in each)
        for title, each in panels
    )
    drawn = picture("rates", alt, functools.partial(draw_rates, panels))
    caption = "How often each policy was right, harmed a guest, or left a balloon "
    return Section(
        "What each policy did",
        (),
        (
            Table(
                "Shares of guests in per cent, and amounts for each guest; below each "
                "its 95 % interval",
                ("policy", *(_head(measure) for measure in MEASURES)),
                rows,
            ),
            Picture(f"{caption}unusable; the bar is the interval.", drawn),
        ),
    )


def _head(measure: Measure) -> str:
    return measure.name if measure.is_share else f"{measure.name}, {measure.unit}"


def _rate(result: Result, policy: str, measure: Measure) -> Cell:
    estimate = result.rate(policy, measure).estimate
    return Cell(
        figures.figure(estimate.value, measure, result.runs),
        figures.between(estimate, measure, result.runs),
    )


def _differences(result: Result, decision: Decision) -> Iterator[Section]:
    first, *others = ranked(decision)
    if not others:
        return
    rows = [
        (Cell(policy, f"less {first}"), *_difference_cells(result, policy, first))
        for policy in others
    ]
    yield Section(
        f"Against {first}, guest by guest",
        (),
        (
            Table(
                "Differences on the same guests, in percentage points and in amounts "
                "for each guest; below each its 95 % interval",
                ("policy", *(_head(measure) for measure in MEASURES)),
                rows,
            ),
        ),
    )


def _difference_cells(result: Result, policy: str, against: str) -> Iterator[Cell]:
    for measure in MEASURES:
        estimate = result.difference(policy, against, measure).estimate
        value = figures.figure(estimate.value, measure, result.runs)
        note = figures.between(estimate, measure, result.runs)
        yield Cell(f"+{value}" if estimate.value > 0 else value, note)


def _classes(result: Result, decision: Decision) -> Section:
    policies = ranked(decision)
    about = {kind.name: kind.about for kind in result.population.classes}
    rows = []
    for kind in result.kinds:
        cells = [Cell(kind.name, about[kind.name])]
        cells.append(Cell(f"{kind.draws / result.runs:.1%}"))
        for measure in (HARMED, UNUSABLE):
            for policy in policies:
                share = kind.totals[policy, measure] / kind.draws
                cells.append(Cell(f"{share:.1%}" if share else "-"))
        rows.append(cells)
    heads = [
        f"{measure.name}, {policy}"
        for measure in (HARMED, UNUSABLE)
        for policy in policies
    ]
    return Section(
        "Class by class",
        (),
        (Table("Shares of each class", ("class", "of the fleet", *heads), rows),),
    )


def _matrices(result: Result) -> Section:
    counted = (
        (row, outcome.lot.count) for outcome in result.outcomes for row in outcome.rows
    )
    return Section(
        "Truth and verdict",
        ("Guests by what their driver is (down) and what the policy said (across).",),
        tuple(confusion(counted)),
    )


def _words() -> Section:
    return Section("What the words mean", list(legend()))
