"""The stages that a driver goes through, and what is concluded in each.

FILL shows a small, odd target: its exact number of pages gives the guest's page size
away, and what a driver with a wrong byte order sees is enormous. SHRINK shows a smaller
one, which is not 0, since 0 is the same in both byte orders: only a driver that reads
its target right and deflates comes to stand on it. GOOD believes the driver, WORKING
works around what is wrong with it, HELD shows it the target that it reads as "nothing
to do", because to some drivers any other does harm, 0 most of all. SILENT is for one
that does not react.
"""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import Final

from balloon_plugin.events import Defect, Judgement
from balloon_plugin.policies.evidence.drivers import DriverKind
from balloon_plugin.policies.evidence.remedies import numbering

__all__ = [
    "OPEN",
    "PROBING",
    "WAITING",
    "Stage",
    "defects",
    "is_hopeless",
    "judgement",
    "mean_the_same",
    "reason",
]


class Stage(enum.Enum):
    """Where the policy stands with a driver."""

    FILL = "FILL"
    SHRINK = "SHRINK"
    GOOD = "GOOD"
    WORKING = "WORKING"
    HELD = "HELD"
    SILENT = "SILENT"


PROBING = (Stage.FILL, Stage.SHRINK)
"""Those in which the driver is asked for pages that nobody wants."""

OPEN = (Stage.GOOD, Stage.WORKING)
"""Those in which the user's targets are accepted."""

WAITING = (*PROBING, Stage.SILENT)
"""Those in which the user's target waits."""

REMEMBERED: Final = 256
"""Sets of kinds of which what follows is remembered: it is asked for at every buffer,
and seldom changes."""


def judgement(stage: Stage, alive: tuple[DriverKind, ...]) -> Judgement:
    """Return what is concluded when these kinds are left."""
    if stage is Stage.GOOD:
        return Judgement.GOOD
    certain = stage not in PROBING or all(kind.defects for kind in alive)
    return Judgement.BUGGY if certain else Judgement.UNDECIDED


@lru_cache(REMEMBERED)
def defects(
    alive: tuple[DriverKind, ...], mute: tuple[Defect, ...]
) -> tuple[Defect, ...]:
    """Return the defects that every kind left has, in the order of the table.

    :param mute: what silence has shown besides.
    """
    common = tuple(
        defect
        for defect in (alive[0].defects if alive else ())
        if all(defect in kind.defects for kind in alive)
    )
    return common + tuple(item for item in mute if item not in common)


def reason(stage: Stage, found: tuple[Defect, ...]) -> str:
    """Return why a target is not accepted, for whoever asked for it."""
    if stage in PROBING:
        return "the driver is being tested; the target takes effect after that"
    if stage is Stage.SILENT:
        return "the driver does not react, so it cannot be judged"
    named = ", ".join(defect.value for defect in found)
    return f"the balloon is shut: the driver {named or 'cannot be believed'}"


@lru_cache(REMEMBERED)
def is_hopeless(alive: tuple[DriverKind, ...]) -> bool:
    """Return whether nothing but to hold the driver where it is can be right."""
    return (
        not alive
        or not alive[0].deflates
        or all(kind.frees_wrong or not kind.deflates for kind in alive)
    )


@lru_cache(REMEMBERED)
def mean_the_same(alive: tuple[DriverKind, ...]) -> bool:
    """Return whether all kinds left mean the same pages by the same numbers."""
    return len({numbering(kind) for kind in alive}) <= 1
