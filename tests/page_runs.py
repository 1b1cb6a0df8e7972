"""Pages and runs of them, for tests: by sets of page numbers, walked one by one."""

from __future__ import annotations

from balloon_plugin.events import MemoryRange

PAGE = 4096
KIB = 1024


def ranges(*parts):
    """Return ranges from (first page, pages)."""
    return tuple(MemoryRange(first * PAGE, pages * PAGE) for first, pages in parts)


def pages_of(runs):
    return {page for first, count in runs for page in range(first, first + count)}


def runs_of(pages, edges=()):
    """Return pages as runs, by walking them; none goes over one of the edges."""
    runs = []
    for page in sorted(pages):
        if runs and sum(runs[-1]) == page and page not in edges:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((page, 1))
    return runs
