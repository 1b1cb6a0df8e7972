"""What the commands share: how words are read, refused and explained."""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import sys
from enum import Enum
from typing import Any, NoReturn, TypeVar

from balloon_plugin import show
from balloon_plugin.events import ByteOrder
from balloon_plugin.layouts import PAGE_SIZE

__all__ = [
    "DEFAULT_POLICY",
    "Parser",
    "add_facts",
    "add_features",
    "add_policy",
    "command",
    "member",
    "page_size",
    "seconds",
    "size",
    "workers",
]

_T = TypeVar("_T", bound=Enum)

DEFAULT_POLICY = "evidence"
"""What judges drivers if nothing else is asked for."""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

_LEAST_BYTES = 1 << 20
"""A number without a unit below this was not meant to be bytes: no guest's memory or
balloon is so small, and QEMU's own prompt takes ``balloon 384`` for MiB."""


_MOST_WORKERS = 1024
"""All of them are started at once; there are few machines with more processors."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2."""
        show.error(f"{message}; see '{self.prog} --help'")
        sys.exit(2)


def size(text: str) -> int:
    """Return bytes, as people write: ``512K``, ``128M``, ``2GiB``, ``2097152``."""
    found = _bytes(text)
    if text.isdecimal() and 0 < found < _LEAST_BYTES:
        message = f"{text!r} is only {found} bytes: write {text}M, or {text}K"
        raise argparse.ArgumentTypeError(message)
    return found


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMGT]?)(?:iB|B)?", text, re.IGNORECASE)
    if match is None:
        message = f"{text!r} is not a size: write bytes, or 512K, 128M, 2G"
        raise argparse.ArgumentTypeError(message)
    return int(match[1]) * _UNITS[match[2].upper()]


def page_size(text: str) -> int:
    """Return the bytes of a page, a power of two from 4 KiB."""
    found = _bytes(text)
    if found < PAGE_SIZE or found & (found - 1):
        message = f"{text!r} is no size of a page: write 4K, 16K, 64K"
        raise argparse.ArgumentTypeError(message)
    return found


def seconds(text: str) -> float:
    """Return a time of more than 0 seconds."""
    with contextlib.suppress(ValueError):
        if (found := float(text)) > 0:
            return found
    message = f"{text!r} is no time: write seconds, more than 0"
    raise argparse.ArgumentTypeError(message)


def workers(text: str) -> int:
    """Return a number of processes."""
    with contextlib.suppress(ValueError):
        if 0 < (found := int(text)) <= _MOST_WORKERS:
            return found
    message = f"{text!r} is no number of processes: write 1 to {_MOST_WORKERS}"
    raise argparse.ArgumentTypeError(message)


def command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    """Add a command whose help is ``text``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.set_defaults(run=run, log_level=logging.WARNING)
    return parser


def add_policy(parser: Any) -> None:
    """Add the policy of one device, to a parser or a group in one."""
    parser.add_argument(
        "--policy",
        default=DEFAULT_POLICY,
        metavar="NAME[:OPTION=VALUE,...]",
        help=f"what judges the driver (default: {DEFAULT_POLICY}); "
        "'balloon-plugin policies' lists them",
    )


def add_features(parser: argparse.ArgumentParser) -> None:
    """Add what a device offers to its driver."""
    parser.add_argument(
        "--feature",
        action="append",
        default=[],
        metavar="[no-]NAME",
        help="a feature of the balloon to offer, or not (repeatable): statistics (on "
        "by default), deflate-on-oom, must-tell-host (serve: on by default), "
        "page-poison, reporting, hinting",
    )


def add_facts(parser: argparse.ArgumentParser) -> None:
    """Add what the host may know of a guest."""
    parser.add_argument(
        "--byte-order",
        choices=[order.value for order in ByteOrder],
        help="of the guest's CPU, if you know it",
    )
    parser.add_argument(
        "--page-size",
        type=page_size,
        metavar="SIZE",
        help="of the guest's kernel, if you know it",
    )


def member(kind: type[_T], value: str | None) -> _T | None:
    """Return what a choice stands for, or ``None`` if nothing was chosen."""
    return None if value is None else kind(value)
