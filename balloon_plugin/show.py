"""What people see: tables and lines, with rich if it is installed and plain without.

Knows how to draw and nothing of what is drawn.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Self, TypeVar

try:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
except ImportError:  # rich comes with the extra "cli"
    HAVE_RICH = False
else:
    HAVE_RICH = True

__all__ = ["Ticker", "error", "line", "progress", "table"]

_T = TypeVar("_T")


def line(text: str, style: str = "") -> None:
    """Print one line at once, also into a pipe."""
    if HAVE_RICH and sys.stdout.isatty():
        Console(highlight=False, soft_wrap=True).print(Text(text, style=style))
    else:
        print(text, flush=True)  # noqa: T201 - this is where output is made


def error(text: str) -> None:
    """Print one sentence to standard error."""
    print(f"balloon-plugin: {text}", file=sys.stderr, flush=True)  # noqa: T201


def progress(items: Iterable[_T], total: int) -> Iterator[_T]:
    """Yield items, and on a terminal show how far it is meanwhile."""
    for done, item in enumerate(items, 1):
        if sys.stderr.isatty():
            end = "\r" if done < total else "\r\033[K"
            print(f"{done} of {total}", end=end, file=sys.stderr, flush=True)  # noqa: T201
        yield item


class Ticker:
    """Lines that stay, and below them one that says what is being waited for."""

    def __enter__(self) -> Self:
        """Begin with nothing to wait for."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no unfinished line behind."""
        self._clear()

    def line(self, text: str, style: str = "") -> None:
        """Print a line that stays."""
        self._clear()
        line(text, style)

    def wait(self, text: str) -> None:
        """Show on a terminal what is being waited for; nothing elsewhere."""
        if sys.stdout.isatty():
            print(f"\r\033[K{text}", end="", flush=True)  # noqa: T201

    @staticmethod
    def _clear() -> None:
        if sys.stdout.isatty():
            print("\r\033[K", end="", flush=True)  # noqa: T201


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    styles: Sequence[str] = (),
) -> None:
    """Print a table; the last column takes what room is left.

    :param styles: one for each row, of rich's.
    """
    if HAVE_RICH and sys.stdout.isatty():
        _rich_table(heads, rows, styles)
    else:
        _plain_table(heads, rows)


def _rich_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str]
) -> None:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for i, head in enumerate(heads):
        drawn.add_column(head, no_wrap=i < len(heads) - 1, overflow="fold")
    for i, row in enumerate(rows):
        drawn.add_row(*map(Text, row), style=styles[i] if styles else "")
    Console(highlight=False).print(drawn)


def _plain_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    every = [list(heads), *map(list, rows)]
    widths = [max(len(row[i]) for row in every) for i in range(len(heads) - 1)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in every:
        fixed = "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=False)
        )
        line(f"{fixed}  {row[-1]}"[:room].rstrip())
