"""The pages that a host holds back, as many as they may be: runs, no single pages.

Values only. A trace may be damaged, and one line of it speak of more pages than fit
into our memory one by one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

__all__ = ["Held"]


class Held:
    """Numbers of pages, empty at first: runs that neither meet nor touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    @property
    def pages(self) -> int:
        """How many these are."""
        return sum(self._ends) - sum(self._starts)

    def clear(self) -> None:
        """Hold none."""
        self._starts.clear()
        self._ends.clear()

    def add(self, first: int, count: int) -> None:
        """Hold ``count`` pages from ``first`` on."""
        end = first + count
        low = bisect_left(self._ends, first)
        high = bisect_right(self._starts, end)
        if low < high:
            first = min(first, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._put(low, high, [(first, end)])

    def remove(self, first: int, count: int) -> None:
        """Hold ``count`` pages from ``first`` on no more, if they were held."""
        end = first + count
        low = bisect_right(self._ends, first)
        high = bisect_left(self._starts, end)
        if low < high:
            before = (self._starts[low], first)
            behind = (end, self._ends[high - 1])
            self._put(low, high, [run for run in (before, behind) if run[0] < run[1]])

    def _put(self, low: int, high: int, runs: list[tuple[int, int]]) -> None:
        self._starts[low:high] = [start for start, _ in runs]
        self._ends[low:high] = [end for _, end in runs]
