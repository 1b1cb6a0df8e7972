"""``balloon-plugin relay``: holds front ends while the daemon dies and comes again."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from balloon_plugin import show
from balloon_plugin.cli.parsing import command
from balloon_plugin.cli.process import allow_descriptors, end_by_signals
from balloon_plugin.errors import HostError
from balloon_plugin.hosts.relay import Relay

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "relay",
        _relay,
        "hold the connections of front ends while 'serve' is killed and started again",
    )
    parser.set_defaults(log_level=logging.INFO)
    parser.add_argument(
        "--socket",
        type=Path,
        action="append",
        required=True,
        metavar="PATH",
        help="a socket to make and listen on for a front end; several for several "
        "guests",
    )
    parser.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where the daemon's sockets are, which have the same names",
    )


def _relay(arguments: argparse.Namespace) -> int:
    """Relay until interrupted or terminated."""
    with Relay() as relay:
        end_by_signals(relay.stop)
        allow_descriptors()
        for path, daemon in _pairs(arguments.socket, arguments.to):
            relay.add(path, daemon)
            show.line(f"{path}: waiting for a front end, which {daemon} is to serve")
        relay.run()
    return 0


def _pairs(paths: list[Path], folder: Path) -> list[tuple[Path, Path]]:
    """Return each socket with the daemon's, of which no two are the same.

    :raises HostError: if two are, or there can be no such folder.
    """
    if folder.exists() and not folder.is_dir():
        raise HostError(
            f"{folder} is no folder: let --to be that of the daemon's sockets"
        )
    daemons = [folder / path.name for path in paths]
    for path, daemon in zip(paths, daemons, strict=True):
        if daemons.count(daemon) > 1:
            raise HostError(f"two front ends would have {daemon}: name one otherwise")
        if path.parent.resolve() == folder.resolve():
            raise HostError(
                f"{path} cannot be the socket of the daemon as well: let --to be "
                "another folder"
            )
    return list(zip(paths, daemons, strict=True))
