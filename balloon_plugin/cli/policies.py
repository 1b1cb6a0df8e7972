"""``balloon-plugin policies``: what is installed."""

from __future__ import annotations

import argparse
from typing import Any

from balloon_plugin import show
from balloon_plugin.cli.parsing import command
from balloon_plugin.manager import find_policies

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    command(commands, "policies", _policies, "list the policies that are installed")


def _policies(_arguments: argparse.Namespace) -> int:
    rows = [
        (info.name, " ".join(info.options) or "-", info.origin, info.summary)
        for info in find_policies()
    ]
    show.table(("policy", "options", "from", "what it does"), rows)
    return 0
