"""``balloon-plugin ctl``: talk to devices that are being served."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from balloon_plugin import control, show
from balloon_plugin.cli.parsing import command, size

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "ctl", _ctl, "talk to devices that are being served")
    parser.add_argument("control", type=Path, help="serve's --control path")
    what = parser.add_subparsers(metavar="WHAT", required=True)
    balloon = what.add_parser("balloon", help="leave the guest SIZE of its memory")
    balloon.add_argument("size", type=size, metavar="SIZE")
    balloon.set_defaults(ask=lambda given: ("balloon", {"value": given.size}))
    _add_guest(balloon)
    for name, asked, text in (
        ("query", "query-balloon-status", "show all that is known of the device"),
        ("verdict", "query-balloon-verdict", "show the verdict with its evidence"),
    ):
        query = what.add_parser(name, help=text)
        query.set_defaults(ask=lambda _given, asked=asked: (asked, {}))
        _add_guest(query)


def _add_guest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "guest",
        nargs="?",
        metavar="GUEST",
        help="which one, if several are served: its --socket's NAME",
    )


def _ctl(arguments: argparse.Namespace) -> int:
    asked, values = arguments.ask(arguments)
    if arguments.guest is not None:
        values["id"] = arguments.guest
    answer = control.ask(arguments.control, asked, **values)
    if answer:
        show.line(json.dumps(answer, indent=2))
    return 0
