"""A buffer that the driver made available: one descriptor, or a chain of them.

Knows what makes a chain one that can be understood, in rings of either format. The
driver may be wrong or hostile: what is wrong with a chain becomes a sentence in it, and
its parts are those before that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from balloon_plugin.layouts import VRING_DESC, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE
from balloon_plugin.memory import GuestMemory

__all__ = [
    "MAX_CHAIN_BYTES",
    "MAX_CHAIN_DESCRIPTORS",
    "Chain",
    "ChainError",
    "Element",
    "gather",
    "read_table",
]

MAX_CHAIN_DESCRIPTORS: Final = 256
"""Descriptors understood of one chain, and in one indirect table.

A chain must not be longer than the queue (§2.7.5.3.1), but that may have 32768 entries,
and all its chains may share one long tail: without a limit one kick would cost minutes.
Free page reporting sends 32 in a chain, all else in a balloon 1 or 2. The limit is
expected (§2.7.4.1, MAY have a reasonable limit of descriptors).
"""

MAX_CHAIN_BYTES: Final = 1 << 32
"""Bytes in one chain (§2.7.5.2, MUST NOT be longer than 2**32 bytes in total)."""

_DESCRIPTOR: Final = VRING_DESC.size
"""Bytes of a descriptor; a packed one has as many."""


class Chain(NamedTuple):
    """A buffer that the driver made available.

    A named tuple, since one is made for every buffer, and a frozen dataclass takes more
    than twice as long to make.

    :ivar head: by which the driver knows it: the number of its first descriptor, or in
        a packed ring its buffer ID.
    :ivar readable: the device-readable parts as (guest-physical address, bytes); all of
        them in RAM, though not always in one region of it.
    :ivar writable: the device-writable parts, likewise.
    :ivar fault: what is wrong with the chain, a sentence, or ``None``. The parts are
        those before the fault. A faulty chain goes back to the driver like any other.
    """

    head: int
    readable: tuple[tuple[int, int], ...]
    writable: tuple[tuple[int, int], ...]
    fault: str | None = None


Element: TypeAlias = tuple[int, int, int]
"""``addr``, ``len`` and ``flags`` of one descriptor."""


class ChainError(Exception):
    """A chain cannot be understood any further; the text is its fault."""


def gather(
    memory: GuestMemory, head: int, elements: Iterable[Element], longest: int
) -> Chain:
    """Make a chain of its elements, as far as they can be understood.

    :param elements: one after the other; may end in a :class:`ChainError`, or never.
    :param longest: how many are accepted.
    """
    parts, fault = _Parts(memory, longest), None
    try:
        for element in elements:
            parts.add(*element)
    except ChainError as error:
        fault = str(error)
    return Chain(head, tuple(parts.readable), tuple(parts.writable), fault)


def read_table(memory: GuestMemory, element: Element, *, negotiated: bool) -> bytes:
    """Return the indirect table that an element refers to.

    §2.7.5.3.2, MUST ignore the write-only flag in such a descriptor (D18).

    :raises ChainError: if there cannot be such a table.
    """
    address, length, flags = element
    if not negotiated:
        raise ChainError("an indirect descriptor, but that feature was not negotiated")
    if flags & VRING_DESC_F_NEXT:
        raise ChainError("an indirect descriptor has a next one (§2.7.5.3.1, §2.8.19)")
    entries, rest = divmod(length, _DESCRIPTOR)
    if rest or not 0 < entries <= MAX_CHAIN_DESCRIPTORS:
        raise ChainError(f"an indirect table has {length} bytes")
    table = memory.read(address, length)
    if table is None:
        raise ChainError(f"an indirect table at {address:#x} is not in RAM")
    return table


class _Parts:
    """The parts of a chain as they are found."""

    def __init__(self, memory: GuestMemory, longest: int) -> None:
        self.readable: list[tuple[int, int]] = []
        self.writable: list[tuple[int, int]] = []
        self._memory = memory
        self._longest = longest
        self._count = 0
        self._bytes = 0

    def add(self, address: int, length: int, flags: int) -> None:
        """Take the next element.

        :raises ChainError: if it cannot be the next.
        """
        self._count += 1
        self._bytes += length
        fault = self._fault(address, length, flags)
        if fault is not None:
            raise ChainError(fault)
        writes = flags & VRING_DESC_F_WRITE
        (self.writable if writes else self.readable).append((address, length))

    def _fault(self, address: int, length: int, flags: int) -> str | None:
        if self._count > self._longest:
            return f"the chain has a loop, or more than {self._longest} descriptors"
        if self._bytes > MAX_CHAIN_BYTES:
            return f"the chain has {self._bytes} bytes (§2.7.5.2)"
        if self.writable and not flags & VRING_DESC_F_WRITE:
            return "a device-readable part follows a device-writable one (§2.7.4.2)"
        if not self._memory.covers(address, length):
            return f"a part of {length} bytes at {address:#x} is not in RAM"
        return None
