"""What may be made of a result besides a table: JSON, CSV, a report."""

from __future__ import annotations

import argparse
from pathlib import Path

from balloon_plugin import report
from balloon_plugin.errors import HostError

__all__ = ["add_outputs", "report_file"]


def report_file(text: str) -> Path:
    """Return where a report goes, if one can be made and can go there."""
    path = Path(text)
    try:
        report.check(path)
    except HostError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add what else may be made of a result than a table."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print all as JSON")
    form.add_argument(
        "--csv", action="store_true", help="print a line for each run as CSV"
    )
    parser.add_argument(
        "--html",
        type=report_file,
        metavar="FILE",
        help="write a report to FILE, a page with everything in it",
    )
