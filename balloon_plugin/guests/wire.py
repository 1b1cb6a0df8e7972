"""Page numbers as drivers send them: rightly, or wrongly in one of the known ways.

Pure arithmetic. A frame is a page of the guest kernel, by its guest-physical address
divided by the guest's page size; a page is 4 KiB, as everywhere else.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from balloon_plugin.events import ByteOrder
from balloon_plugin.guests.traits import PfnForm
from balloon_plugin.layouts import PAGE_SIZE

__all__ = ["encode", "pack", "reach"]

_SLOTS: Final = {4: "I", 8: "Q"}


def encode(frames: Sequence[int], form: PfnForm, page_size: int) -> list[int]:
    """Return the numbers that stand for these frames on the wire."""
    pieces = page_size // PAGE_SIZE
    if pieces == 1 or form is PfnForm.UNSHIFTED:
        return list(frames)
    if form is PfnForm.RIGHT:
        return [frame * pieces + piece for frame in frames for piece in range(pieces)]
    # 2.6.32.2 VB:59-66: pfn >> (PAGE_SHIFT - VIRTIO_BALLOON_PFN_SHIFT)
    return [frame // pieces for frame in frames]


def pack(numbers: Sequence[int], size: int, order: ByteOrder) -> bytes:
    """Return the numbers as they lie in a buffer, in slots of ``size`` bytes."""
    prefix = "<" if order is ByteOrder.LITTLE else ">"
    return struct.pack(f"{prefix}{len(numbers)}{_SLOTS[size]}", *numbers)


def reach(end: int, form: PfnForm, page_size: int) -> int:
    """Return a page number that no wrong number for RAM below ``end`` exceeds.

    Right numbers never hit a page that is in use; all are right where a guest's pages
    are 4 KiB. Slots of 8 bytes bring zeros with them, and zero is a page too.
    """
    if form is PfnForm.RIGHT or page_size == PAGE_SIZE:
        return 1
    return encode([end // page_size], form, page_size)[0]
