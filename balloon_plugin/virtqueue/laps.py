"""Positions in a packed ring, and the wrap counter that is in them (VIRTIO 1.3 §2.8.1).

Pure arithmetic. A wrap counter turns with each lap of the ring, so that a position is a
place in one of two laps: here a number below twice the size, of which the first half is
the lap with counter 1. On the wire it is the place in 15 bits, and the counter above.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from balloon_plugin.layouts import (
    VRING_PACKED_DESC_F_AVAIL,
    VRING_PACKED_DESC_F_USED,
    VRING_PACKED_EVENT_F_WRAP_CTR,
)

__all__ = ["MARKS", "WRAP", "Laps"]

WRAP: Final = 1 << VRING_PACKED_EVENT_F_WRAP_CTR
"""The beginning of the first lap, as it is on the wire."""

_AVAIL: Final = 1 << VRING_PACKED_DESC_F_AVAIL
_USED: Final = 1 << VRING_PACKED_DESC_F_USED

MARKS: Final = _AVAIL | _USED
"""Flags of a descriptor: different in an available one, alike in a used one."""


class Laps:
    """Positions in a ring of so many descriptors."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._both = 2 * size

    def place(self, position: int) -> int:
        """Return the number of the descriptor at a position."""
        return position if position < self._size else position - self._size

    def after(self, position: int, count: int) -> int:
        """Return the position so many descriptors on."""
        return (position + count) % self._both

    def distance(self, start: int, end: int) -> int:
        """Return how many descriptors there are from one position up to another."""
        return (end - start) % self._both

    def offer(self, position: int) -> int:
        """Return how a driver marks the descriptor at a position available."""
        return _AVAIL if position < self._size else _USED

    def use(self, position: int) -> int:
        """Return how a device marks it used."""
        return MARKS if position < self._size else 0

    def find(self, flags: Sequence[int]) -> int | None:
        """Return the position that a device has come to, as the ring itself shows it.

        The used bit of a descriptor turns when a device uses it, and at no other time.
        That tells how far one has come that used all of them, and used them in order.
        Where it left some out, as those of a list after the first, it may not.

        :param flags: of every descriptor, from the first on.
        :returns: ``None`` if the bits turn more than once.
        """
        used = [bool(word & _USED) for word in flags]
        first = used[0]
        place = next((place for place, bit in enumerate(used) if bit != first), 0)
        if place and first in used[place:]:
            return None
        # Where all are alike a lap begins, and it is not the one that turned them so.
        in_first_lap = first if place else not first
        return place if in_first_lap else place + self._size

    def encode(self, position: int) -> int:
        """Return a position as it is on the wire."""
        return position | WRAP if position < self._size else position - self._size

    def decode(self, word: int) -> int:
        """Return a position that was on the wire; the place in it may be any."""
        place = word & (WRAP - 1)
        return place if word & WRAP else place + self._size
