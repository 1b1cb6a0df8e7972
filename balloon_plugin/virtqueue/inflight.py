"""The record of buffers in flight: taken, and not returned yet.

Knows how it lies in memory that a front end keeps for us, so that whoever serves a
queue next goes on where this one was killed ("Inflight I/O tracking" in QEMU's
``docs/interop/vhost-user.rst``). A device that returns buffers in order, as this one,
finds them in the ring itself. The record is there for a successor that is another, for
a predecessor that was, and for packed rings with lists, which do not show where they
stand.

The memory is shared with a front end, which may write nonsense to it: that becomes an
:class:`InflightError`. After that it is written, and never read again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from balloon_plugin.layouts import (
    DESC_STATE_PACKED,
    DESC_STATE_SPLIT,
    QUEUE_REGION_PACKED,
    QUEUE_REGION_SPLIT,
    VRING_PACKED_EVENT_F_WRAP_CTR,
    Layout,
)
from balloon_plugin.virtqueue.chain import Element

__all__ = ["InflightError", "PackedInflight", "SplitInflight", "inflight_size"]

_VERSION: Final = 1
"""Of a record; one that nobody has begun has 0."""

_ALIGNMENT: Final = 64
"""Of each queue's record, so that no two share a line of a processor's cache."""

_INDEX_MASK: Final = 0xFFFF
_COUNTER_MASK: Final = (1 << 64) - 1
_WRAP: Final = VRING_PACKED_EVENT_F_WRAP_CTR

Columns: TypeAlias = dict[str, memoryview]
"""A field of structures in a row, by its name; each access to an item is whole."""


class InflightError(Exception):
    """A record makes no sense; the text is a sentence."""


def inflight_size(size: int, *, packed: bool) -> int:
    """Return the bytes of the record of a queue with so many entries."""
    head, state = _PACKED if packed else _SPLIT
    return -(-(head.size + size * state.size) // _ALIGNMENT) * _ALIGNMENT


class _Record:
    """What the records of both formats have in common.

    :param region: of the queue, as large as :func:`inflight_size` says.
    :param size: entries of the queue.
    :param layouts: of the head, and of each entry's state.
    """

    def __init__(
        self, region: memoryview, size: int, layouts: tuple[Layout, Layout]
    ) -> None:
        head, state = layouts
        self._size = size
        self._head = _columns(head, region)
        self._state = _columns(state, region[head.size :], size)
        self._counter = 0
        self.new = not self._of("version")
        """Whether nobody has begun the record before."""
        if not self.new and self._of("desc_num") != size:
            raise InflightError(
                f"the record of buffers in flight is of {self._of('desc_num')} entries "
                f"and not of {size}"
            )

    def release(self) -> None:
        """Let go of the memory."""
        for column in (*self._head.values(), *self._state.values()):
            column.release()

    def _of(self, field: str) -> int:
        return self._head[field][0]

    def _set(self, **fields: int) -> None:
        """Set fields of the head, one after the other."""
        for field, value in fields.items():
            self._head[field][0] = value

    def _order(self) -> list[int]:
        """Return the entries in flight in the order in which they were taken."""
        flags, counters = self._state["inflight"].tolist(), self._state["counter"]
        entries = [entry for entry, flag in enumerate(flags) if flag]
        entries.sort(key=lambda entry: counters[entry])
        if entries:
            self._counter = counters[entries[-1]]
        return entries

    def _count(self, entry: int) -> None:
        """Mark an entry as in flight, the last one so far."""
        self._counter = (self._counter + 1) & _COUNTER_MASK
        self._state["counter"][entry] = self._counter
        self._state["inflight"][entry] = 1


class SplitInflight(_Record):
    """The record of a split queue (``QueueRegionSplit``).

    :param used_idx: as it is in the used ring.
    :ivar left: the heads that a predecessor left in flight, in order.
    :raises InflightError: if it makes no sense.
    """

    def __init__(self, region: memoryview, size: int, used_idx: int) -> None:
        super().__init__(region, size, _SPLIT)
        if self.new:
            self._set(desc_num=size, used_idx=used_idx, version=_VERSION)
        else:
            self._settle((used_idx - self._of("used_idx")) & _INDEX_MASK)
            self._set(used_idx=used_idx)
        self._last = self._of("last_batch_head")
        self.left = self._order()

    def _settle(self, count: int) -> None:
        """Note that the last batch was returned, of so many buffers."""
        head = self._of("last_batch_head")
        for _ in range(count):
            if count > self._size or head >= self._size:
                raise InflightError(
                    "the record of buffers in flight does not show which came back"
                )
            self._state["inflight"][head] = 0
            head = self._state["next"][head]

    def take(self, head: int) -> None:
        """Note that a buffer was taken."""
        self._count(head)

    def returning(self, heads: list[int]) -> None:
        """Note that buffers are about to be returned, in one update."""
        for head in heads:
            self._state["next"][head] = self._last
            self._last = head
            self._set(last_batch_head=head)

    def returned(self, heads: list[int], used_idx: int) -> None:
        """Note that they were."""
        for head in heads:
            self._state["inflight"][head] = 0
        self._set(used_idx=used_idx)


class PackedInflight(_Record):
    """The record of a packed queue (``QueueRegionPacked``).

    It has the descriptors themselves, as used ones are written over them. Each entry is
    free or one of a list, and so is where it is linked.

    :param position: where the queue stands as far as is known, as it is on the wire.
    :param available: returns whether the descriptor at a position is still available.
    :ivar used: where it does stand.
    :ivar left: what a predecessor left in flight, in order: IDs and descriptors.
    :raises InflightError: if it makes no sense.
    """

    def __init__(
        self,
        region: memoryview,
        size: int,
        position: int,
        available: Callable[[int], bool],
    ) -> None:
        super().__init__(region, size, _PACKED)
        self.used = position
        self.left: list[tuple[int, list[Element]]] = []
        self._chains: dict[int, list[int]] = {}
        taken: set[int] = set()
        if not self.new:
            self.used, free = self._settle(available)
            self._clear(free)
            self.left = [self._read(entry, taken) for entry in self._order()]
        # The next one is taken from the end.
        self._free = [entry for entry in reversed(range(size)) if entry not in taken]
        self._link(self._free)
        self._stand("")
        self._stand("old_")
        self._set(desc_num=size, version=_VERSION)

    # --- what a predecessor left ---

    def _settle(self, available: Callable[[int], bool]) -> tuple[int, int]:
        """Return the position and the first free entry, before or after a last update.

        It was made if the driver has its descriptor back.
        """
        old, new = self._position("old_"), self._position("")
        made = old != new and not available(old)
        age, position = ("", new) if made else ("old_", old)
        return position, self._of(f"{age}free_head")

    def _position(self, age: str) -> int:
        place = self._of(f"{age}used_idx")
        if place >= self._size:
            raise InflightError(
                f"the record of buffers in flight has descriptor {place} of "
                f"{self._size} as the next"
            )
        return place | (self._of(f"{age}used_wrap_counter") & 1) << _WRAP

    def _clear(self, free: int) -> None:
        """Note that free entries are not in flight, whatever was begun with them."""
        for _ in range(self._size):
            if free >= self._size:
                break
            self._state["inflight"][free] = 0
            free = self._state["next"][free]

    def _read(self, entry: int, taken: set[int]) -> tuple[int, list[Element]]:
        """Return the ID and the descriptors of a list; its entries are taken."""
        state, chain = self._state, [entry]
        while len(chain) < state["num"][entry]:
            chain.append(state["next"][chain[-1]] % self._size)
        ident, before = state["id"][chain[-1]], len(taken)
        taken.update(chain)
        if len(taken) - before < len(chain) or ident in self._chains:
            raise InflightError("the record has a buffer in flight twice")
        self._chains[ident] = chain
        address, length, flags = state["addr"], state["len"], state["flags"]
        return ident, [(address[at], length[at], flags[at]) for at in chain]

    # --- what happens ---

    def take(self, ident: int, elements: list[Element]) -> None:
        """Note that a buffer was taken, with its descriptors."""
        state = self._state
        chain = [self._free.pop() for _ in elements]
        state["num"][chain[0]] = 0
        self._count(chain[0])
        for entry, (address, length, flags) in zip(chain, elements, strict=True):
            state["addr"][entry], state["len"][entry] = address, length
            state["flags"][entry], state["id"][entry] = flags, ident
        state["last"][chain[0]], state["num"][chain[0]] = chain[-1], len(chain)
        self._chains[ident] = chain
        self._set(free_head=self._first_free)
        self._set(old_free_head=self._first_free)

    def returning(self, ident: int, position: int) -> None:
        """Note that a buffer is about to be returned; ``position`` is next after it."""
        chain = self._chains[ident]
        self._state["next"][chain[-1]] = self._first_free
        self._free += reversed(chain)
        self.used = position
        self._stand("")

    def returned(self, ident: int) -> None:
        """Note that it was."""
        self._state["inflight"][self._chains.pop(ident)[0]] = 0
        self._stand("old_")

    @property
    def _first_free(self) -> int:
        return self._free[-1] if self._free else self._size

    def _link(self, free: list[int]) -> None:
        """Link free entries, from the last of them to the first."""
        following = self._size
        for entry in free:
            self._state["next"][entry] = following
            following = entry

    def _stand(self, age: str) -> None:
        """Set where the queue stands; the place last, by which updates are told."""
        place = self.used & ((1 << _WRAP) - 1)
        self._set(
            **{
                f"{age}free_head": self._first_free,
                f"{age}used_wrap_counter": self.used >> _WRAP,
                f"{age}used_idx": place,
            }
        )


_SPLIT: Final = QUEUE_REGION_SPLIT, DESC_STATE_SPLIT
_PACKED: Final = QUEUE_REGION_PACKED, DESC_STATE_PACKED


def _columns(layout: Layout, region: memoryview, count: int = 1) -> Columns:
    """Return the fields of so many structures in a row."""
    part: Any = region[: count * layout.size]
    columns = {}
    for name, code in zip(layout.fields, layout.little.format[1:], strict=True):
        width = struct.calcsize(code)
        every = part.cast(code)
        columns[name] = every[layout.offsets[name] // width :: layout.size // width]
    return columns
