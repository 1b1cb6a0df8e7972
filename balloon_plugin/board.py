"""A table that is drawn again and again, with rich on a terminal.

Knows how to draw and nothing of what is drawn.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Self, TypeAlias

from balloon_plugin import show

try:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text
except ImportError:  # rich comes with the extra "cli"
    HAVE_RICH = False
else:
    HAVE_RICH = True

__all__ = ["Board", "Row"]

Row: TypeAlias = tuple[Sequence[str], str]
"""Cells, and a style of rich's."""


class Board:
    """A table that is drawn again in its place; where that cannot be, what changed.

    :param heads: of its columns; the first names the rows.
    """

    def __init__(self, heads: Sequence[str]) -> None:
        self._heads = heads
        self._known: dict[str, Sequence[str]] = {}
        self._live = None
        if HAVE_RICH and sys.stdout.isatty():
            self._live = Live(console=Console(highlight=False), auto_refresh=False)

    def __enter__(self) -> Self:
        """Begin below what is on the terminal."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last table behind."""
        if self._live:
            self._live.stop()

    def draw(self, rows: Sequence[Row]) -> None:
        """Show these rows instead of those from before."""
        if self._live:
            width, height = self._live.console.size
            lines = list(_board_lines(self._heads, rows, width))
            if len(lines) >= height:
                rest = f"... and {len(lines) - height + 2} lines more"
                lines = [*lines[: height - 2], (rest, "bold")]
            self._live.update(
                Text("\n").join(Text(*each) for each in lines), refresh=True
            )
            return
        for cells, _ in rows:
            if self._known.get(cells[0]) != cells:
                self._known[cells[0]] = cells
                said = zip(self._heads[1:], cells[1:], strict=True)
                told = "  ".join(f"{head} {cell}" for head, cell in said)
                show.line(f"{time.strftime('%H:%M:%S')}  {cells[0]}  {told}")


def _board_lines(
    heads: Sequence[str], rows: Sequence[Row], width: int
) -> Iterator[tuple[str, str]]:
    """Yield the lines of a board with their styles; two a row if it is narrow."""
    every = [heads, *(cells for cells, _ in rows)]
    styles = ["bold", *(style for _, style in rows)]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    wide = sum(widths) + 2 * (len(widths) - 1) <= width
    for cells, style in zip(every, styles, strict=True):
        if wide:
            yield show.aligned(cells, widths, "  "), style
        else:
            yield f"{cells[0]}  {cells[-1]}", style
            yield f"  {show.aligned(cells[1:-1], widths[1:-1], ' ')}", style
