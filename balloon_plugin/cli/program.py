"""The program: which commands there are, and how each of them ends.

Exit codes: 0 done, 1 it ran and did not come out as it should, 2 the request cannot be
carried out (with one sentence that says what to do), 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final

from balloon_plugin import __version__, show
from balloon_plugin.cli.parsing import Parser
from balloon_plugin.errors import BalloonError

__all__ = ["main"]

_COMMANDS: Final = (
    "compare",
    "sweep",
    "boot",
    "serve",
    "relay",
    "ctl",
    "replay",
    "policies",
)
"""In the order of the help. Each is a module here, and imported only if it is meant:
to import all takes longer than most of them do."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""How it is said that there is no room for the output."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A trace, or a client, may bring a text that nothing can encode.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(sys.argv[1:] if argv is None else [*argv])
        sys.stdout.flush()
    except BalloonError as error:
        show.error(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _print_no_more()
        return 0
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _print_no_more()
        show.error(f"not all could be written: {error.strerror}; make room for it")
        return 2
    return code


def _print_no_more() -> None:
    """Let what is still to be printed go nowhere: Python flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: list[str]) -> int:
    arguments = _parser(words[:1]).parse_args(words)
    arguments.words = ["balloon-plugin", *words]
    logging.basicConfig(format="%(message)s", level=arguments.log_level)
    code: int = arguments.run(arguments)
    return code


def _parser(named: list[str]) -> argparse.ArgumentParser:
    parser = Parser(
        prog="balloon-plugin",
        description="A virtio memory balloon that works out whether a guest's driver "
        "can be believed.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in [name for name in named if name in _COMMANDS] or _COMMANDS:
        importlib.import_module(f"balloon_plugin.cli.{name}").add(commands)
    return parser
