"""In which order a kernel hands out its free memory.

It matters to whoever looks at page numbers. The wrong shift of 2.6.29-3.3 shows itself
by the same number for neighbours, so only where pages do lie side by side; its numbers
are small whatever the order is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from random import Random
from typing import Final

from balloon_plugin.guests.traits import Allocation

__all__ = ["BLOCK", "in_order"]

BLOCK: Final = 4 << 20
"""Bytes of the largest block of the buddy allocator on 4 KiB pages (order 10).

On larger pages it is more, but then a small guest would be a block or two.
"""

_BITTEN_OFF: Final = 5
"""Frames of the first block that something else has taken before.

Real kernels begin like that: in the first buffer of one with 64 KiB pages and the wrong
shift, 16 or 256 numbers were 2 or 3, and 17 or 18 different ones, not 1 and 16.
"""


def in_order(
    frames: range, allocation: Allocation, block: int, seed: int = 0
) -> Iterator[int]:
    """Yield all frames once, in the order of allocation.

    :param frames: those above what the kernel itself occupies.
    :param block: frames in the largest block.
    :param seed: of the scattering.
    """
    if allocation is Allocation.CONTIGUOUS:
        return iter(frames)
    if allocation is Allocation.TOP:
        return _from_top(frames, block)
    return _scattered(frames, Random(seed))  # noqa: S311 - a simulation's dice


def _from_top(frames: range, block: int) -> Iterator[int]:
    # Blocks lie on multiples of their size; the lowest may begin within one.
    starts = range((frames.stop - 1) // block * block, frames.start - block, -block)
    blocks = [
        range(max(at, frames.start), min(at + block, frames.stop)) for at in starts
    ]
    bitten_off = blocks[0][:_BITTEN_OFF] if block > _BITTEN_OFF else range(0)
    blocks[0] = blocks[0][len(bitten_off) :]
    return chain(*blocks, bitten_off)


def _scattered(frames: range, dice: Random) -> Iterator[int]:
    """Shuffle lazily (Fisher-Yates): nothing is made for frames never asked for."""
    moved: dict[int, int] = {}
    for left in range(frames.stop, frames.start, -1):
        pick = dice.randrange(frames.start, left)
        yield moved.get(pick, pick)
        moved[pick] = moved.get(left - 1, left - 1)
