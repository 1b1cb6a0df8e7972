"""Rows of a matrix counted: a confusion matrix for each policy, and the worst cases.

What no policy could have avoided is counted apart, see
:mod:`~balloon_plugin.compare.limits`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from balloon_plugin.compare.limits import limit
from balloon_plugin.compare.runner import Row
from balloon_plugin.events import Judgement

__all__ = ["FAILURES", "HEADS", "Count", "Tally", "command", "tally"]

_GOOD, _BUGGY, _UNDECIDED = (
    Judgement.GOOD.value,
    Judgement.BUGGY.value,
    Judgement.UNDECIDED.value,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A way in which a run can fail.

    :ivar head: the head of its column.
    :ivar failed: whether a row did.
    :ivar pages: how badly, in pages; ``None`` where that is no question.
    """

    head: str
    failed: Callable[[Row], bool]
    pages: Callable[[Row], int] | None = None


PARKED: Final = Failure(
    "parked", lambda row: row.parked_pages > 0, lambda row: row.parked_pages
)

FAILURES: Final = (
    Failure(
        "harmed",
        lambda row: row.harm_pages > 0,
        lambda row: row.harm_pages,
    ),
    Failure("false GOOD", lambda row: row.verdict == _GOOD != row.truth),
    Failure("false BUGGY", lambda row: row.verdict == _BUGGY != row.truth),
    Failure("undecided", lambda row: row.verdict == _UNDECIDED != row.truth),
    Failure("unusable", lambda row: row.usable_at_best and not row.usable),
    PARKED,
)
"""Every way to fail, the worst first."""

UNAVOIDABLE: Final = "unavoidable"
"""The head of the column of runs in which a failure was not to be avoided."""

HEADS: Final = (
    "policy",
    "runs",
    "right",
    *(failure.head for failure in FAILURES),
    UNAVOIDABLE,
)
"""What :attr:`Tally.cells` are."""


@dataclass(slots=True)
class Count:
    """How often a policy failed in one way.

    :ivar runs: how often.
    :ivar pages: all pages concerned, where that is a question.
    :ivar worst: the worst of these runs, or the first.
    """

    runs: int = 0
    pages: int = 0
    worst: Row | None = None


@dataclass(slots=True)
class Tally:
    """How one policy did.

    :ivar policy: the policy with its options.
    :ivar runs: how many there were.
    :ivar right: verdicts that are the truth.
    :ivar counts: by the head of each way to fail.
    :ivar unavoidable: runs with a failure that no policy avoids.
    """

    policy: str
    runs: int = 0
    right: int = 0
    unavoidable: int = 0
    counts: dict[str, Count] = field(
        default_factory=lambda: {failure.head: Count() for failure in FAILURES}
    )

    def add(self, row: Row) -> None:
        """Count a row."""
        self.runs += 1
        self.right += row.right
        failures = [failure for failure in FAILURES if failure.failed(row)]
        avoidable = [each for each in failures if limit(row, each.head) is None]
        self.unavoidable += len(avoidable) < len(failures)
        for failure in avoidable:
            self._add_failure(failure, row)

    @property
    def failures(self) -> int:
        """Failures that could have been avoided; parked pages are a cost, and none."""
        return sum(
            count.runs for head, count in self.counts.items() if head != PARKED.head
        )

    def _add_failure(self, failure: Failure, row: Row) -> None:
        count = self.counts[failure.head]
        pages = failure.pages(row) if failure.pages else 0
        worst = failure.pages(count.worst) if failure.pages and count.worst else 0
        if count.worst is None or pages > worst:
            count.worst = row
        count.runs += 1
        count.pages += pages

    def cells(self) -> tuple[str, ...]:
        """Return a line of the confusion matrix."""
        return (
            self.policy,
            str(self.runs),
            str(self.right),
            *(_cell(self.counts[failure.head]) for failure in FAILURES),
            str(self.unavoidable or "-"),
        )

    def worst(self) -> list[tuple[str, Row]]:
        """Return the worst run of each kind of failure but the mildest."""
        return [
            (head, count.worst)
            for head, count in self.counts.items()
            if count.worst is not None and head != PARKED.head
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the tally as a value that JSON can carry."""
        return {
            "policy": self.policy,
            "runs": self.runs,
            "right": self.right,
            "unavoidable": self.unavoidable,
            "failures": {
                head: {
                    "runs": count.runs,
                    "pages": count.pages,
                    "worst": count.worst and command(count.worst),
                }
                for head, count in self.counts.items()
            },
        }


def _cell(count: Count) -> str:
    if not count.runs:
        return "-"
    return f"{count.runs} ({count.pages} pages)" if count.pages else str(count.runs)


def tally(rows: Iterable[Row]) -> list[Tally]:
    """Return a tally for each policy, in the order in which they come."""
    tallies: dict[str, Tally] = {}
    for row in rows:
        tallies.setdefault(row.policy, Tally(row.policy)).add(row)
    return list(tallies.values())


def command(row: Row) -> str:
    """Return the command that shows what happened in a run, event by event."""
    return shlex.join(
        (
            *("balloon-plugin", "compare", "--guest", row.guest),
            *("--circumstance", row.circumstance, "--policy", row.policy, "--trace"),
        )
    )
