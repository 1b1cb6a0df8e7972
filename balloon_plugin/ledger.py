"""The record of which pages are in the balloon, and which of them were given back.

Values only: nothing here knows queues, policies, or the system calls that give pages
back.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
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
    paint,
    repaint,
    unpack,
)
from balloon_plugin.pages import between, bounds, clip, join, split, total, whole

__all__ = ["Ledger"]

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
        self._bounds = [bounds(part) for part in self._ranges]
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
        self._pages += total(runs) - self._write(runs, IN, make=True)

    def deflate(self, runs: Sequence[Run]) -> int:
        """Record pages as the driver's own again.

        :returns: how many of them were not in the balloon.
        """
        known = self._write(runs, OUT, make=False)
        self._pages -= known
        if not self._pages:
            self.clear()
        return total(runs) - known

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
            return whole(runs, self._pieces)
        gathered = join(part for run in runs for part in self._gathered(run))
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
        return clip(split(join(kept), most)[0], self._ranges)[0]

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
        ends = [(first % CHUNK, first % CHUNK + count) for first, count in inside]
        if not chunk or pages != sum(
            end - start - chunk.count(OUT, start, end) for start, end in ends
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
        if self.reclaimed != total(reclaimed):
            message = "pages are recorded as reclaimed that are not in the balloon"
            raise ValueError(message)

    # --- states ---

    def _write(self, runs: Sequence[Run], state: int, *, make: bool) -> int:
        """Set the state of pages; return how many of them were in the balloon."""
        if self._pieces > 1 and self._reclaimed:
            # All of a host page comes back when any piece of it is used.
            touched = join(self._outer(run) for run in runs)
            self._reclaimed -= self._replace(touched, GIVEN_BACK, IN)
        known = 0
        for number, parts in self._parts(runs, make=make):
            self._unsaved.add(number)
            chunk, base = self._chunks[number], number << CHUNK_SHIFT
            ballooned, given_back = paint(chunk, base, parts, state)
            known += ballooned
            self._reclaimed -= given_back
        return known

    def _replace(self, runs: Sequence[Run], old: int, new: int) -> int:
        """Set the pages in one state to another; return how many they are."""
        replaced = 0
        for number, parts in self._parts(runs, make=False):
            self._unsaved.add(number)
            chunk, base = self._chunks[number], number << CHUNK_SHIFT
            replaced += repaint(chunk, base, parts, old, new)
        return replaced

    def _parts(
        self, runs: Sequence[Run], *, make: bool
    ) -> Iterator[tuple[int, list[Run]]]:
        """Yield where the states of runs are kept: a chunk's number, and those in it.

        :param make: whether to make chunks that are missing, rather than skip them.
        """
        following = place = 0
        end = sum(runs[-1]) if runs else 0
        while following < end:
            first = max(following, runs[place][0])
            number = first >> CHUNK_SHIFT
            following = (number + 1) << CHUNK_SHIFT
            if make and number not in self._chunks:
                self._chunks[number] = bytearray(CHUNK)
            if number in self._chunks:
                yield number, between(runs, first, following)
            if following < end:
                place = bisect_right(runs, following, place, key=sum)

    def _runs(self, state: re.Pattern[bytes]) -> list[Run]:
        return join(
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
        ballooned = 0
        for number, parts in self._parts([(first, self._pieces)], make=False):
            ((page, count),) = parts
            start = page % CHUNK
            ballooned += count - self._chunks[number].count(OUT, start, start + count)
        return ballooned == self._pieces

    def _down(self, page: int) -> int:
        return page & -self._pieces

    def _up(self, page: int) -> int:
        return -(-page & -self._pieces)


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
