"""Rows and tallies as tables: heads, cells, and what they mean. Draws nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from balloon_plugin.compare.limits import LIMITS
from balloon_plugin.compare.runner import Row
from balloon_plugin.compare.tally import HEADS, Tally, command

__all__ = [
    "LEGEND",
    "MATRIX_LEGEND",
    "ROW_HEADS",
    "cells",
    "in_markdown",
    "limits_in_markdown",
    "replaced",
    "style",
    "worst_cases",
]

ROW_HEADS: Final = (
    "guest",
    "policy",
    "verdict",
    "state",
    "",
    "harm",
    "taken",
    "parked",
    "steps",
    "usable",
    "because",
)
"""What :func:`cells` are."""

LEGEND: Final = """\
harm: pages in use that the guest lost
taken: the most pages missing before anybody asked for a balloon
parked: pages still missing after all were asked back
steps: what the driver did until the verdict
usable: the balloon that was asked for was reached, and given back; all pages are of \
4 KiB"""
"""What the columns of rows mean."""

MATRIX_LEGEND: Final = """\
right: the verdict is the truth
harmed: the guest lost pages that it was using, whoever took them
unusable: the balloon did not come to its target and back, though it could have
parked: pages are missing after all were asked back; all pages are of 4 KiB
unavoidable: runs with a failure that no policy avoids, which is not counted before"""
"""What the columns of the confusion matrix mean."""


def cells(row: Row) -> tuple[str, ...]:
    """Return a row as the cells under :data:`ROW_HEADS`."""
    usual = row.circumstance == "usual"
    return (
        row.guest if usual else f"{row.guest}, {row.circumstance}",
        row.policy,
        row.verdict,
        row.state,
        "right" if row.right else "WRONG",
        str(row.harm_pages or "-"),
        str(row.taken_pages or "-"),
        str(row.parked_pages or "-"),
        "-" if row.steps is None else str(row.steps),
        "yes" if row.usable else "no",
        row.evidence[-1] if row.evidence else "-",
    )


def style(row: Row) -> str:
    """Return in what colour a row stands out."""
    return "red" if row.harm_pages else "" if row.right else "yellow"


def worst_cases(tallies: Sequence[Tally]) -> Iterator[str]:
    """Yield lines that name the worst run of each kind, and how to see it."""
    for tally in tallies:
        for head, row in tally.worst():
            pages = f" ({row.harm_pages} pages)" if head == "harmed" else ""
            yield f"{tally.policy}, {head}{pages}: {row.guest}, {row.circumstance}"
            yield f"    {command(row)}"


def in_markdown(tallies: Sequence[Tally]) -> str:
    """Return the confusion matrices as one table in Markdown."""
    lines = [HEADS, ("---", *("---:" for _ in HEADS[1:]))]
    lines += [(f"`{tally.policy}`", *tally.cells()[1:]) for tally in tallies]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def limits_in_markdown() -> str:
    """Return what no policy avoids, with the proofs, as a list in Markdown."""
    return "".join(
        f"{each.name} ({', '.join(sorted(each.heads))})\n: {each.proof}\n\n"
        for each in LIMITS
    )


def replaced(text: str, name: str, block: str) -> str:
    """Return a document with what is between its markers replaced.

    The markers are comments, ``<!-- NAME -->`` and ``<!-- end of NAME -->``.

    :raises ValueError: if they are not there.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"there is no {begin.strip()} with its end")
    return f"{before}{begin}\n{block}\n{end}{after}"
