"""What queues of both formats have in common: their place in RAM, and their end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder
from balloon_plugin.layouts import VIRTQUEUE_MAX_SIZE
from balloon_plugin.memory import GuestMemory
from balloon_plugin.virtqueue.chain import Chain
from balloon_plugin.virtqueue.ring import Ring
from balloon_plugin.virtqueue.words import Words, make_fence

__all__ = ["DeviceQueue", "Part", "heads_of"]


class Part(NamedTuple):
    """One of the three parts of a queue."""

    name: str
    address: int
    align: int
    length: int


class _Mapped(Protocol):
    """Something in memory that may be unmapped after :meth:`release`."""

    def release(self) -> None: ...


_AnyMapped = TypeVar("_AnyMapped", bound=_Mapped)

Parts: TypeAlias = Callable[[Ring, int], tuple[Part, Part, Part]]
"""Returns the parts of a ring with so many entries."""


class DeviceQueue:
    """A started virtqueue of either format.

    One that cannot be (its size, alignment or place) is no reason to raise, since it
    was the driver who chose: it is :attr:`broken` from the start.

    :param memory: RAM, in which the three parts of the queue and all buffers are.
    :param ring: where they lie, and what was negotiated.
    :param parts: of the format.
    """

    def __init__(self, memory: GuestMemory, ring: Ring, parts: Parts) -> None:
        self._memory = memory
        self._ring = ring
        self._size = ring.size
        self._broken: str | None = None
        self._fence = make_fence()
        views = _views(memory, ring, parts)
        if isinstance(views, str):
            # It has no entries, and they lie in memory of our own.
            self._broken, self._size = views, 0
            views = [memoryview(bytearray(part.length)) for part in parts(ring, 0)]
        self._views = views
        self._mapped: list[_Mapped] = [*views]

    @property
    def byte_order(self) -> ByteOrder:
        """Return the byte order of the queue and of page numbers in its buffers."""
        return self._ring.byte_order

    @property
    def desc(self) -> int:
        """Return the guest-physical address of the descriptors."""
        return self._ring.desc

    @property
    def broken(self) -> str | None:
        """Return why the ring itself is lost, a sentence, or ``None``."""
        return self._broken

    def release(self) -> None:
        """Let go of guest memory, so that it can be unmapped: the queue was stopped."""
        self._broken = "the queue was stopped"
        for mapped in self._mapped:
            mapped.release()

    def _words(self, view: memoryview) -> Words:
        """Return the words of a part."""
        return self._own(Words(view, self._ring.byte_order))

    def _own(self, mapped: _AnyMapped) -> _AnyMapped:
        """Return what has to be let go of with guest memory."""
        self._mapped.append(mapped)
        return mapped


def heads_of(chains: Sequence[Chain], held: AbstractSet[int]) -> list[int]:
    """Return the heads of chains that are to be returned.

    :param held: the heads of all that :meth:`pop` gave and nobody returned.
    :raises HostError: if one is not among them, or comes twice.
    """
    heads = [chain.head for chain in chains]
    unique = set(heads)
    if len(unique) < len(heads) or not unique <= held:
        raise HostError(
            f"of the chains {heads} some are not the device's to return: "
            "push each chain that this queue's pop() gave, once"
        )
    return heads


def _views(memory: GuestMemory, ring: Ring, parts: Parts) -> list[memoryview] | str:
    """Return the parts of a queue, or why there cannot be such a queue."""
    size = ring.size
    # Only a split ring has to be a power of two (§2.7, §2.8.10.1).
    odd = not ring.packed and size & (size - 1)
    if not 0 < size <= VIRTQUEUE_MAX_SIZE or odd:
        return f"a queue cannot have {size} entries (§2.7, §2.8)"
    views = []
    for name, address, align, length in parts(ring, size):
        view = memory.view(address, length)
        if view is None:
            return f"the {name} at {address:#x} is not in one region of RAM"
        if address % align:
            return f"the {name} at {address:#x} is not aligned to {align} bytes"
        views.append(view)
    return views
