"""``balloon-plugin compare``: simulated guests under policies, and who was right."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from balloon_plugin import show
from balloon_plugin.cli.outputs import add_outputs
from balloon_plugin.cli.parsing import DEFAULT_POLICY, command, workers
from balloon_plugin.compare import Row, compare, matrix, report, run
from balloon_plugin.compare.cases import cases
from balloon_plugin.compare.circumstances import find as circumstance
from balloon_plugin.compare.circumstances import listing
from balloon_plugin.compare.records import as_csv
from balloon_plugin.compare.tally import HEADS, Tally, tally
from balloon_plugin.errors import HostError
from balloon_plugin.guests.profiles import GUESTS, find
from balloon_plugin.manager import make_policy
from balloon_plugin.report import rows_page, write

__all__ = ["add"]


_DEFAULT_COMPARISON: Final = ("none", "probe", "feature-bit", "evidence")

_ARGUMENT: Final = (
    "linux-3.3-be-64k",
    "linux-3.3-be-4k",
    "linux-3.3-le-64k",
    "linux-3.4-be-64k",
)
"""Guests that carry the argument of 2012: the one that it began with, both of its bugs
by themselves, and the first that was right."""

_ALL: Final = "all"
"""Stands for every guest."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands, "compare", _compare, "put simulated guests under each policy"
    )
    parser.add_argument(
        "--guest",
        action="append",
        metavar="NAME",
        help="a guest, or 'all' (repeatable; default: four that say why there are "
        "policies, with --matrix all)",
    )
    parser.add_argument(
        "--guests", action="store_true", help="list the guests, with the truth of each"
    )
    parser.add_argument(
        "--policy",
        action="append",
        metavar="NAME[:OPTION=VALUE,...]",
        help="a policy (repeatable; default: all that come with this package)",
    )
    parser.add_argument(
        "--circumstance",
        action="append",
        metavar="NAME[+NAME...]",
        help="what is special about the run (repeatable; default: nothing)",
    )
    parser.add_argument(
        "--circumstances", action="store_true", help="list what can be special"
    )
    parser.add_argument(
        "--trace", action="store_true", help="print every event of one run"
    )
    parser.add_argument(
        "--matrix",
        action="store_true",
        help="run every guest in every circumstance that makes sense, and count",
    )
    parser.add_argument(
        "--workers",
        type=workers,
        metavar="N",
        help="processes for --matrix (default: as many as there are processors)",
    )
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="with --matrix, put the table and the limits where FILE has its markers",
    )
    add_outputs(parser)


def _compare(arguments: argparse.Namespace) -> int:
    if arguments.circumstances:
        show.table(("circumstance", "what is special"), list(listing()))
        return 0
    if arguments.guests:
        show.table(("guest", "truth", "defects"), list(_listing()))
        return 0
    _check_fit(arguments)
    for policy in arguments.policy or ():
        make_policy(policy)
    if arguments.trace:
        return _trace(arguments)
    policies = arguments.policy or _DEFAULT_COMPARISON
    if arguments.matrix:
        return _matrix(arguments, policies)
    guests = [find(name) for name in _meant(arguments.guest or _ARGUMENT)]
    special = [circumstance(name) for name in arguments.circumstance or ["usual"]]
    total = len(guests) * len(policies) * len(special)
    rows = list(show.progress(compare(guests, policies, special), total))
    if _is_for_machines(arguments, rows):
        return 0
    styles = [report.style(row) for row in rows]
    show.table(report.ROW_HEADS, [report.cells(row) for row in rows], styles)
    for text in ("", *report.LEGEND.splitlines()):
        show.prose(text)
    return 0


def _check_fit(arguments: argparse.Namespace) -> None:
    """Refuse what would be left undone without a word."""
    if arguments.markdown and not arguments.matrix:
        raise HostError("--markdown is for the table of --matrix: give both")
    forms = (arguments.json, arguments.csv, arguments.html, arguments.matrix)
    if arguments.trace and any(forms):
        raise HostError(
            "--trace prints the events of one run, and makes nothing else of it: leave "
            "--json, --csv, --html and --matrix away"
        )


def _listing() -> Iterator[tuple[str, str, str]]:
    """Yield the name of each guest, and what is true of it."""
    for guest in GUESTS.values():
        defects = ", ".join(defect.name for defect in guest.defects)
        yield guest.name, guest.truth.value, defects or "-"


def _meant(names: Sequence[str]) -> Sequence[str]:
    return list(GUESTS) if _ALL in names else names


def _is_for_machines(
    arguments: argparse.Namespace, rows: Sequence[Row], **more: object
) -> bool:
    """Write the report if one is wanted, and print rows if it is for machines."""
    if arguments.html:
        write(arguments.html, rows_page(rows, arguments.words))
    records = [row.as_dict() for row in rows]
    if arguments.json:
        print(json.dumps({**more, "rows": records}, indent=2))  # noqa: T201
    if arguments.csv:
        print(as_csv(records), end="")  # noqa: T201
    return bool(arguments.json or arguments.csv)


def _trace(arguments: argparse.Namespace) -> int:
    """Print what happens in one run."""
    row = run(
        find(_only("guest", _meant(arguments.guest or []))),
        _only("policy", arguments.policy or [DEFAULT_POLICY]),
        circumstance(_only("circumstance", arguments.circumstance or ["usual"])),
        tell=lambda now, steps, what: show.line(f"{now:8.3f} s {steps:6}  {what}"),
    )
    show.line("")
    show.table(report.ROW_HEADS, [report.cells(row)], [report.style(row)])
    return 0


def _only(option: str, given: Sequence[str]) -> str:
    if len(given) != 1:
        message = f"--trace shows one run: give --{option} once"
        raise HostError(message)
    return given[0]


def _matrix(arguments: argparse.Namespace, policies: Sequence[str]) -> int:
    tasks = [
        (case, policy)
        for policy in policies
        for case in cases(_meant(arguments.guest or [_ALL]), arguments.circumstance)
    ]
    found = list(show.progress(matrix.rows(tasks, arguments.workers), len(tasks)))
    tallies = tally(found)
    if _is_for_machines(arguments, found, policies=[one.as_dict() for one in tallies]):
        return 0
    if arguments.markdown:
        _put_into(arguments.markdown, tallies)
    show.table(HEADS, [each.cells() for each in tallies])
    for text in ("", *report.MATRIX_LEGEND.splitlines()):
        show.prose(text)
    for text in ("", *report.worst_cases(tallies)):
        show.line(text)
    return 0


def _put_into(path: Path, tallies: Sequence[Tally]) -> None:
    """Put the table and the limits where a file has its markers."""
    try:
        text = path.read_text(encoding="utf-8")
        text = report.replaced(text, "matrix", report.in_markdown(tallies))
        text = report.replaced(text, "limits", report.limits_in_markdown())
        path.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise HostError(f"the table cannot be put into {path}: {error}") from error
