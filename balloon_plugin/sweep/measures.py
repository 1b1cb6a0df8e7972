"""What a policy is measured by: a table of questions to a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from balloon_plugin.compare import Row
from balloon_plugin.events import Judgement

__all__ = ["MEASURES", "Measure"]

_UNDECIDED: Final = Judgement.UNDECIDED.value


@dataclass(frozen=True, slots=True)
class Measure:
    """One question to a row.

    :ivar name: what it is called in tables.
    :ivar about: what it tells, for people.
    :ivar of: the answer: 0 or 1 where it is a share of guests, or an amount.
    :ivar unit: of an amount, for each guest; nothing where it is a share.
    """

    name: str
    about: str
    of: Callable[[Row], int]
    unit: str = ""

    @property
    def is_share(self) -> bool:
        """Whether it is a share of guests."""
        return not self.unit


HARMED: Final = Measure(
    "harmed",
    "the guest lost pages that it was using, whoever took them",
    lambda row: row.harm_pages > 0,
)
UNUSABLE: Final = Measure(
    "unusable",
    "the balloon did not come to its target and back, though it could have",
    lambda row: row.usable_at_best and not row.usable,
)
RIGHT: Final = Measure("right", "the verdict is the truth", lambda row: row.right)
WRONG: Final = Measure(
    "wrong",
    "a right driver was called buggy, or a buggy one right",
    lambda row: row.verdict not in (row.truth, _UNDECIDED),
)
OPEN: Final = Measure(
    "undecided",
    "there was no verdict, though there is a truth",
    lambda row: row.verdict == _UNDECIDED != row.truth,
)
HARM: Final = Measure(
    "harm", "pages in use that were lost", lambda row: row.harm_pages, "pages"
)
TAKEN: Final = Measure(
    "taken",
    "memory that was missing before anybody asked for a balloon",
    lambda row: row.taken_page_seconds,
    "page-seconds",
)
PARKED: Final = Measure(
    "parked",
    "memory that was still missing after all was asked back",
    lambda row: row.parked_page_seconds,
    "page-seconds",
)

MEASURES: Final = (RIGHT, WRONG, OPEN, HARMED, UNUSABLE, HARM, TAKEN, PARKED)
"""All of them, in the order of tables. Of every one but the first, less is better."""
