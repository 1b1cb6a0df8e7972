"""``balloon-plugin ctl``: talk to devices that are being served."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from balloon_plugin import control, show
from balloon_plugin.board import Board
from balloon_plugin.cli.parsing import command, size
from balloon_plugin.control import report

__all__ = ["add"]

_PERIOD: Final = 1.0
"""Seconds between two looks of ``watch``."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "ctl", None, "talk to devices that are being served")
    parser.add_argument(
        "control", type=Path, metavar="CONTROL", help="serve's --control path"
    )
    what = parser.add_subparsers(metavar="WHAT", required=True)
    _add_balloon(what)
    for name, (text, _) in _VIEWS.items():
        view = command(what, name, _show, text)
        _add_guest(view)
        view.add_argument(
            "--json", action="store_true", help="print a line of JSON for each guest"
        )
        view.set_defaults(view=name)
        if name == "stats":
            _add_interval(view)
    watch = command(what, "watch", _watch, "show guests again and again, until Ctrl-C")
    watch.add_argument(
        "more", nargs="*", type=Path, metavar="CONTROL", help="more control paths"
    )


def _add_balloon(what: Any) -> None:
    balloon = command(what, "balloon", _balloon, "leave the guest SIZE of its memory")
    balloon.add_argument(
        "size",
        type=size,
        metavar="SIZE",
        help="what it is to keep (512K, 384M, 2G); the balloon is to have the rest",
    )
    _add_guest(balloon)


def _add_guest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "guest",
        nargs="?",
        metavar="GUEST",
        help="one of several: the NAME that it was given with serve's --socket",
    )


def _add_interval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--every",
        type=int,
        metavar="SECONDS",
        help="from now on ask the driver for statistics so often; 0 ends that",
    )


def _balloon(arguments: argparse.Namespace) -> int:
    answer = control.ask(
        arguments.control, "balloon", value=arguments.size, **_id(arguments.guest)
    )
    pages = report.pages(answer["requested"])
    why = f": {answer['reason']}" if answer["reason"] else ""
    show.prose(f"a balloon of {pages} is {answer['answer']}{why}")
    return 0


def _id(guest: str | None) -> dict[str, str]:
    return {} if guest is None else {"id": guest}


# --- what is known of guests --------------------------------------------------------

_VIEWS: Final[dict[str, tuple[str, Callable[[Any], list[tuple[str, str]]]]]] = {
    "query": ("show what is known of guests", report.status_lines),
    "stats": ("show the statistics that drivers sent", report.statistics_lines),
    "verdict": ("show verdicts with their evidence", report.verdict_lines),
}


def _show(arguments: argparse.Namespace) -> int:
    _, view = _VIEWS[arguments.view]
    for status in _statuses(arguments):
        if arguments.json:
            show.line(json.dumps(report.part(status, arguments.view)))
            continue
        show.line(status["id"], "bold")
        show.facts(view(status))
    return 0


def _statuses(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what a query shows of the guest that is meant, or of all."""
    with control.Client(arguments.control) as client:
        names = [arguments.guest]
        if arguments.guest is None:
            names = [each["id"] for each in client.execute("query-balloon-guests")]
        for name in names:
            every = getattr(arguments, "every", None)
            if every is not None:
                client.execute(
                    "qom-set",
                    path=name,
                    property="guest-stats-polling-interval",
                    value=every,
                )
            yield client.execute("query-balloon-status", id=name)


# --- watch --------------------------------------------------------------------------


def _watch(arguments: argparse.Namespace) -> int:
    """Look at guests until interrupted, which is the usual end."""
    with control.Watch([arguments.control, *arguments.more]) as watch:
        try:
            with Board(report.HEADS) as board:
                while True:
                    board.draw(list(watch.look()))
                    time.sleep(_PERIOD)
        except KeyboardInterrupt:
            return 0
