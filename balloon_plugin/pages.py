"""Page numbers to runs, and the record of which pages are in the balloon.

Values only: nothing here knows queues, policies, or the system calls that give pages
back. A run is a first page number and a count, in pages of 4 KiB. Lists of runs are as
:func:`merge` and then :func:`clip` return them: sorted, disjoint, none longer than it
could be, and each within one range of RAM.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

from balloon_plugin.errors import HostError
from balloon_plugin.events import MemoryRange, Run
from balloon_plugin.layouts import PAGE_SIZE
from balloon_plugin.page_states import (
    CHUNK,
    CHUNK_SHIFT,
    GIVEN_BACK,
    IN,
    OUT,
    members,
    pack,
    unpack,
)

__all__ = ["Ledger", "clip", "covered", "merge", "split"]


# --- runs ---------------------------------------------------------------------------

_FIRST: Final = itemgetter(0)
_COUNT: Final = itemgetter(1)


def merge(pfns: Iterable[int]) -> list[Run]:
    """Return page numbers, in any order and with duplicates, as runs (rule 11)."""
    ordered = sorted(pfns)
    if not ordered:
        return []
    # Most batches are one run, which need not be walked: as many different numbers as
    # there are between the first and the last.
    span = ordered[-1] - ordered[0] + 1
    if span <= len(ordered) and len(set(ordered)) == span:
        return [(ordered[0], span)]
    return _walk(ordered)


def _walk(ordered: list[int]) -> list[Run]:
    runs = []
    first = following = ordered[0]
    for pfn in ordered:
        if pfn > following:
            runs.append((first, following - first))
            first = pfn
        following = pfn + 1
    runs.append((first, following - first))
    return runs


def clip(runs: Sequence[Run], ranges: Sequence[MemoryRange]) -> tuple[list[Run], int]:
    """Return the parts of runs that are RAM, and how many pages are not.

    A run that spans adjacent ranges is split where they meet: they may be mapped far
    apart, so that no system call can cover both.

    :param runs: sorted and disjoint, as from :func:`merge`.
    :param ranges: RAM by ascending address.
    """
    inside = [part for bounds in ranges for part in _between(runs, *_bounds(bounds))]
    return inside, _pages(runs) - _pages(inside)


def covered(parts: Iterable[tuple[int, int]], unit: int) -> list[Run]:
    """Return the pages that ranges of bytes cover, in whole units, as runs.

    :param parts: (guest-physical address, bytes), in any order, overlapping or not.
    :param unit: bytes, a multiple of 4096. Several parts may cover one together.
    """
    runs: list[Run] = []
    start = end = 0
    for address, size in (*sorted(parts), (_NOWHERE, 0)):
        if address <= end:
            end = max(end, address + size)
            continue
        low, high = -(-start // unit) * unit, end // unit * unit
        if low < high:
            runs.append((low // PAGE_SIZE, (high - low) // PAGE_SIZE))
        start, end = address, address + size
    return runs


_NOWHERE: Final = 1 << 65
"""An address behind all others."""


def split(runs: Sequence[Run], pages: int) -> tuple[list[Run], list[Run]]:
    """Return the first ``pages`` (1 or more) of runs, and the rest."""
    for place, (first, count) in enumerate(runs):
        if count >= pages:
            rest = [(first + pages, count - pages)] if count > pages else []
            return [*runs[:place], (first, pages)], [*rest, *runs[place + 1 :]]
        pages -= count
    return list(runs), []


def _bounds(part: MemoryRange) -> tuple[int, int]:
    """Return the first page of a range, and the first behind it."""
    return part.start // PAGE_SIZE, (part.start + part.size) // PAGE_SIZE


def _between(runs: Sequence[Run], start: int, end: int) -> list[Run]:
    """Return the parts of sorted runs from page ``start`` to before page ``end``."""
    if runs and start <= runs[0][0] and sum(runs[-1]) <= end:
        return list(runs)  # nearly always, and nothing to look for
    low = bisect_right(runs, start, key=sum)
    high = bisect_left(runs, end, key=_FIRST)
    parts = list(runs[low:high])
    if parts and parts[0][0] < start:
        parts[0] = (start, sum(parts[0]) - start)
    if parts and sum(parts[-1]) > end:
        parts[-1] = (parts[-1][0], end - parts[-1][0])
    return parts


def _pages(runs: Iterable[Run]) -> int:
    return sum(map(_COUNT, runs))


# --- the record ---------------------------------------------------------------------

_STATES: Final = tuple(bytes([state]) for state in (OUT, IN, GIVEN_BACK))

_BALLOONED_RUN: Final = re.compile(rb"[^\x00]+")
_KEPT_RUN: Final = re.compile(rb"\x01+")
_GIVEN_BACK_RUN: Final = re.compile(rb"\x02+")


class Ledger:
    """The device's own record of which pages are in the balloon.

    The states of pages are kept in chunks. One is made when a page of it first gets
    into the balloon, so that the record of an idle device is empty.

    :param ranges: the guest's RAM by ascending address, mapped so that host pages begin
        at multiples of their size.
    :param host_page_size: bytes that the host can give back at the least.
    :raises HostError: if ``host_page_size`` is no power of two, or below 4096.
    """

    def __init__(self, ranges: Sequence[MemoryRange], host_page_size: int) -> None:
        if host_page_size < PAGE_SIZE or host_page_size & (host_page_size - 1):
            message = (
                f"a host page cannot have {host_page_size} bytes: "
                f"give a power of two, {PAGE_SIZE} or more"
            )
            raise HostError(message)
        self._ranges = tuple(ranges)
        self._bounds = [_bounds(part) for part in self._ranges]
        self._starts = [start for start, _ in self._bounds]
        self._host_page_size = host_page_size
        self._pieces = host_page_size // PAGE_SIZE
        self.clear()

    @property
    def pages(self) -> int:
        """Return how many pages are in the balloon."""
        return self._pages

    @property
    def reclaimed(self) -> int:
        """Return how many pages in the balloon were really given back."""
        return self._reclaimed

    def inflate(self, runs: Sequence[Run]) -> None:
        """Record pages as in the balloon, and not given back yet.

        That holds for pages which were in it already, too: whoever sends a page again
        had it in use in between.
        """
        self._pages += _pages(runs) - self._write(runs, IN, make=True)

    def deflate(self, runs: Sequence[Run]) -> int:
        """Record pages as the driver's own again.

        :returns: how many of them were not in the balloon.
        """
        known = self._write(runs, OUT, make=False)
        self._pages -= known
        if not self._pages:
            self.clear()
        return _pages(runs) - known

    def ripe(self, runs: Sequence[Run], *, accumulate: bool) -> list[Run]:
        """Return the host pages that ``runs`` make ready to be given back, as runs.

        Only whole host pages are, and all their pieces must be in ``runs``: a driver
        may use a page again before it tells (VIRTIO 1.3 §5.5.6.2), so that nothing is
        known of pieces which came with a buffer that was returned.

        :param runs: pages of buffers not yet returned; :meth:`inflate` them first.
        :param accumulate: whether pieces that came earlier count as well. They may if
            VIRTIO_BALLOON_F_MUST_TELL_HOST was negotiated.
        """
        if self._pieces == 1:
            return list(runs)
        if not accumulate:
            return [whole for run in runs for whole in self._inner(run)]
        gathered = _joined(whole for run in runs for whole in self._gathered(run))
        return clip(gathered, self._ranges)[0]

    def mark_reclaimed(self, runs: Sequence[Run]) -> None:
        """Record pages as given back to the host, as far as they are in the balloon."""
        self._reclaimed += self._replace(runs, IN, GIVEN_BACK)

    def kept(self, start: int, most: int) -> list[Run]:
        """Return pages in the balloon that were not given back.

        :param start: page number from which to look.
        :param most: pages to return, 1 or more.
        """
        kept: list[Run] = []
        pages = 0
        for number in sorted(self._chunks):
            if pages >= most:
                break
            base = number << CHUNK_SHIFT
            for found in _KEPT_RUN.finditer(self._chunks[number], max(0, start - base)):
                kept.append((base + found.start(), found.end() - found.start()))
                pages += found.end() - found.start()
        return clip(split(_joined(kept), most)[0], self._ranges)[0]

    def clear(self) -> None:
        """Forget everything: a new driver session begins."""
        self._chunks: dict[int, bytearray] = {}
        self._saved: dict[str, dict[str, str]] = {}
        self._unsaved: set[int] = set()  # chunks that may differ from what was saved
        self._pages = 0
        self._reclaimed = 0

    def take_over(self, other: Ledger) -> None:
        """Record what another ledger knows of pages that are RAM in this one, too."""
        self.inflate(clip(other._runs(_BALLOONED_RUN), self._ranges)[0])
        self.mark_reclaimed(clip(other._runs(_GIVEN_BACK_RUN), self._ranges)[0])

    def save(self) -> dict[str, Any]:
        """Return the record as a value that JSON can carry.

        ``chunks`` has the chunks with pages in the balloon, by number. What did not
        change since the last call is the same object again: it costs nothing, neither
        here nor where two values are compared. So nobody may change it.
        """
        for number in self._unsaved:
            if form := pack(self._chunks[number]):
                self._saved[str(number)] = form
            else:
                self._saved.pop(str(number), None)
        self._unsaved.clear()
        return {"chunks": dict(self._saved)}

    def load(self, state: dict[str, Any]) -> None:
        """Take over a saved record in place of this one.

        :param state: from :meth:`save`, or of a device before it kept chunks:
            ``ballooned`` and ``reclaimed``, sorted and disjoint lists of ``[first page,
            count]``.
        :raises ValueError: if it is damaged, or of another guest; nothing changes then.
        """
        saved = Ledger(self._ranges, self._host_page_size)
        if "chunks" in state:
            for number, form in members(state["chunks"]):
                saved._restore(number, form)
        else:
            saved._restore_runs(state)
        self._chunks, self._saved, self._unsaved = saved._chunks, {}, set(saved._chunks)
        self._pages, self._reclaimed = saved.pages, saved.reclaimed

    def _restore(self, number: int, form: object) -> None:
        """Take over one saved chunk."""
        inside, outside = clip([(number << CHUNK_SHIFT, CHUNK)], self._ranges)
        # First, so that a number that is no RAM does not cost the memory of a chunk.
        chunk = bytearray() if outside == CHUNK else unpack(form)
        pages = len(chunk) - chunk.count(OUT)
        bounds = [(first % CHUNK, first % CHUNK + count) for first, count in inside]
        if not chunk or pages != sum(
            end - start - chunk.count(OUT, start, end) for start, end in bounds
        ):
            message = f"not all that is recorded in chunk {number} is in RAM"
            raise ValueError(message)
        self._chunks[number] = chunk
        self._pages += pages
        self._reclaimed += chunk.count(GIVEN_BACK)

    def _restore_runs(self, state: dict[str, Any]) -> None:
        """Take over a record that was saved as runs."""
        self.inflate(self._inside(state, "ballooned"))
        reclaimed = self._inside(state, "reclaimed")
        self.mark_reclaimed(reclaimed)
        if self.reclaimed != _pages(reclaimed):
            message = "pages are recorded as reclaimed that are not in the balloon"
            raise ValueError(message)

    # --- states ---

    def _write(self, runs: Sequence[Run], state: int, *, make: bool) -> int:
        """Set the state of pages; return how many of them were in the balloon."""
        if self._pieces > 1 and self._reclaimed:
            # All of a host page comes back when any piece of it is used.
            touched = _joined(self._outer(run) for run in runs)
            self._reclaimed -= self._replace(touched, GIVEN_BACK, IN)
        known = 0
        for number, parts in self._parts(runs, make=make):
            self._unsaved.add(number)
            ballooned, given_back = _paint(self._chunks[number], parts, state)
            known += ballooned
            self._reclaimed -= given_back
        return known

    def _replace(self, runs: Sequence[Run], old: int, new: int) -> int:
        """Set the pages in one state to another; return how many they are."""
        replaced = 0
        for number, parts in self._parts(runs, make=False):
            self._unsaved.add(number)
            replaced += _repaint(self._chunks[number], parts, old, new)
        return replaced

    def _parts(
        self, runs: Sequence[Run], *, make: bool
    ) -> Iterator[tuple[int, list[Run]]]:
        """Yield where the states of runs are kept: the chunk's number, its parts.

        :param make: whether to make chunks that are missing, rather than skip them.
        """
        following = place = 0
        end = sum(runs[-1]) if runs else 0
        while following < end:
            first = max(following, runs[place][0])
            number = first >> CHUNK_SHIFT
            start, following = number << CHUNK_SHIFT, (number + 1) << CHUNK_SHIFT
            if make and number not in self._chunks:
                self._chunks[number] = bytearray(CHUNK)
            if number in self._chunks:
                parts = _between(runs, first, following)
                yield number, [(page - start, count) for page, count in parts]
            if following < end:
                place = bisect_right(runs, following, place, key=sum)

    def _runs(self, state: re.Pattern[bytes]) -> list[Run]:
        return _joined(
            (number * CHUNK + found.start(), found.end() - found.start())
            for number, chunk in sorted(self._chunks.items())
            for found in state.finditer(chunk)
        )

    def _inside(self, state: dict[str, Any], name: str) -> list[Run]:
        """Return saved runs, checked."""
        runs, outside = clip(_checked(state.get(name), name), self._ranges)
        if outside:
            message = f"{outside} pages recorded as {name} are not in RAM"
            raise ValueError(message)
        return runs

    # --- host pages ---

    def _inner(self, run: Run) -> Iterator[Run]:
        """Yield the host pages that are wholly in a run."""
        low, high = self._up(run[0]), self._down(run[0] + run[1])
        if low < high:
            yield low, high - low

    def _outer(self, run: Run) -> Run:
        """Return the host pages in which a run has a piece."""
        low, high = self._down(run[0]), self._up(run[0] + run[1])
        return low, high - low

    def _gathered(self, run: Run) -> Iterator[Run]:
        """Yield the host pages in which a run has a piece, if all others are there."""
        start, end = self._bounds[bisect_right(self._starts, run[0]) - 1]
        low, count = self._outer(run)
        # A host page that is not wholly in this range is not all the guest's.
        low, high = max(low, self._up(start)), min(low + count, self._down(end))
        # Those in the middle are wholly in the run.
        if low < high and not self._complete(low):
            low += self._pieces
        if low < high and not self._complete(high - self._pieces):
            high -= self._pieces
        if low < high:
            yield low, high - low

    def _complete(self, first: int) -> bool:
        return self._pieces == sum(
            count - self._chunks[number].count(OUT, start, start + count)
            for number, parts in self._parts([(first, self._pieces)], make=False)
            for start, count in parts
        )

    def _down(self, page: int) -> int:
        return page & -self._pieces

    def _up(self, page: int) -> int:
        return -(-page & -self._pieces)


# In a scattered batch nearly all runs are single pages, for which an item of the chunk
# takes a sixth of the time that a slice does.


def _paint(chunk: bytearray, parts: Sequence[Run], state: int) -> tuple[int, int]:
    """Set the state of pages; return how many were ballooned, and given back."""
    ballooned = given_back = 0
    for start, count in parts:
        if count == 1:
            before = chunk[start]
            chunk[start] = state
            ballooned += before != OUT
            given_back += before == GIVEN_BACK
        else:
            end = start + count
            ballooned += count - chunk.count(OUT, start, end)
            given_back += chunk.count(GIVEN_BACK, start, end)
            chunk[start:end] = _STATES[state] * count
    return ballooned, given_back


def _repaint(chunk: bytearray, parts: Sequence[Run], old: int, new: int) -> int:
    """Set the pages in one state to another; return how many they are."""
    repainted = 0
    for start, count in parts:
        if count == 1:
            if chunk[start] == old:
                chunk[start] = new
                repainted += 1
        else:
            end = start + count
            repainted += chunk.count(old, start, end)
            chunk[start:end] = chunk[start:end].replace(_STATES[old], _STATES[new])
    return repainted


def _joined(runs: Iterable[Run]) -> list[Run]:
    """Join runs, sorted by both their ends, that overlap or touch."""
    joined: list[Run] = []
    for first, count in runs:
        if joined and first <= sum(joined[-1]):
            start, _ = joined[-1]
            joined[-1] = (start, first + count - start)
        else:
            joined.append((first, count))
    return joined


def _checked(value: object, name: str) -> list[Run]:
    """Return runs from a snapshot, if that is what they are."""
    runs = []
    end = 0
    for item in value if isinstance(value, list) else [None]:
        match item:
            case [int(first), int(count)] if first >= end and count > 0:
                runs.append((first, count))
                end = first + count
            case _:
                message = f"{name} is no list of sorted, disjoint runs"
                raise ValueError(message)
    return runs
