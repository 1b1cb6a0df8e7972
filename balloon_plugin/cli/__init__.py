"""The command line: arguments in, one call, exit code out; a room for each command."""

from __future__ import annotations

from balloon_plugin.cli.program import main

__all__ = ["main"]
