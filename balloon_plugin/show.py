"""What people see: tables and lines, with rich if it is installed and plain without.

Knows how to draw and nothing of what is drawn.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Self, TypeVar

try:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
except ImportError:  # rich comes with the extra "cli"
    HAVE_RICH = False
else:
    HAVE_RICH = True

__all__ = [
    "Bar",
    "Ticker",
    "aligned",
    "error",
    "facts",
    "line",
    "progress",
    "prose",
    "table",
]

_T = TypeVar("_T")


def line(text: str, style: str = "") -> None:
    """Print one line at once, also into a pipe."""
    if HAVE_RICH and sys.stdout.isatty():
        Console(highlight=False, soft_wrap=True).print(Text(text, style=style))
    else:
        print(text, flush=True)  # noqa: T201 - this is where output is made


def prose(text: str, style: str = "", hang: int = 0) -> None:
    """Print sentences, which go on in another line of a terminal between words.

    :param hang: columns by which such a line is indented.
    """
    if sys.stdout.isatty():
        text = textwrap.fill(
            text,
            shutil.get_terminal_size().columns,
            subsequent_indent=hang * " ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    line(text, style)


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


class Bar:
    """How far something is, and how long it will take; shown on a terminal only.

    Use it as a context manager, and call it with how much is done, and of how much. The
    first call says what was done before.

    :ivar done: how much is done.
    :ivar total: of how much.
    """

    def __init__(self) -> None:
        self.done = self.total = 0
        self._before: int | None = None
        self._begun = time.monotonic()
        self._shown = ""

    def __enter__(self) -> Self:
        """Begin with nothing done."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no unfinished line behind."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)  # noqa: T201

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is, if that can be seen."""
        self.done, self.total = done, total
        if self._before is None:
            self._before = done
        if (text := self._text()) != self._shown:
            self.note(text)

    def note(self, text: str) -> None:
        """Say what is done that cannot be counted, until there is more to show."""
        if sys.stderr.isatty():
            self._shown = text
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)  # noqa: T201

    def _text(self) -> str:
        full = _BAR * self.done // max(self.total, 1)
        bar = "#" * full + "." * (_BAR - full)
        return f"[{bar}] {self.done} of {self.total}{self._left()}"

    def _left(self) -> str:
        """Return how long it will take, by what it took until now."""
        new = self.done - (self._before or 0)
        if not new:
            return ""
        each = (time.monotonic() - self._begun) / new
        minutes, seconds = divmod(round(each * (self.total - self.done)), 60)
        return f", {minutes} min {seconds} s left" if minutes else f", {seconds} s left"


_BAR: Final = 30
"""Columns of a bar."""


class Ticker:
    """Lines that stay, and below them one that says what is being waited for."""

    def __enter__(self) -> Self:
        """Begin with nothing to wait for."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no unfinished line behind."""
        self._clear()

    def line(self, text: str, style: str = "", hang: int = 0) -> None:
        """Print sentences that stay."""
        self._clear()
        prose(text, style, hang)

    def wait(self, text: str) -> None:
        """Show on a terminal what is being waited for; nothing elsewhere."""
        if sys.stdout.isatty():
            room = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{text[:room]}", end="", flush=True)  # noqa: T201

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

    Nothing is shortened but the last column. On a narrow terminal the first column
    becomes headings, and the last goes below each row.

    :param styles: one for each row, of rich's.
    """
    every = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    least = sum(widths[:-1]) + 2 * len(widths[1:]) + min(widths[-1], _LEAST_ROOM)
    if room is not None and room < least:
        _stacked_table(every, widths, room, ["bold", *(styles or [""] * len(rows))])
    elif HAVE_RICH and room is not None:
        _rich_table(heads, rows, styles)
    else:
        for row in every:
            line(aligned(row, [*widths[:-1], 0], "  ")[:room])


_LEAST_ROOM: Final = 40
"""Columns of text below which a last column is a tower of words."""


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Print titles with a text beside each, or below it on a narrow terminal."""
    beside = max(len(title) for title, _ in pairs) + 4
    if not sys.stdout.isatty():
        room = sys.maxsize
    elif (room := shutil.get_terminal_size().columns) < beside + _LEAST_ROOM:
        beside = 4
    for title, text in pairs:
        folded = textwrap.fill(
            text, room, initial_indent=beside * " ", subsequent_indent=beside * " "
        )
        if len(title) + 2 < beside:
            line(f"  {title}{folded[len(title) + 2 :]}")
        else:
            line(f"  {title}")
            line(folded)


def aligned(row: Sequence[str], widths: Sequence[int], gap: str) -> str:
    """Return cells as one line, in columns of these widths."""
    cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    return gap.join(cells).rstrip()


def _rich_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str]
) -> None:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for i, head in enumerate(heads):
        drawn.add_column(head, no_wrap=i < len(heads) - 1, overflow="fold")
    for i, row in enumerate(rows):
        drawn.add_row(*map(Text, row), style=styles[i] if styles else "")
    Console(highlight=False).print(drawn)


def _stacked_table(
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    room: int,
    styles: Sequence[str],
) -> None:
    heading = None
    for row, style in zip(rows, styles, strict=True):
        if row[0] != heading:
            heading = row[0]
            line(heading, "bold")
        prose(f"  {aligned(row[1:-1], widths[1:-1], ' ')}", style, hang=2)
        line(textwrap.indent(textwrap.fill(row[-1], max(room - 4, 1)), "    "), style)
