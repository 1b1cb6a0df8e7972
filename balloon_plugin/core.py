"""The balloon's own rules: its configuration space, and page numbers in a buffer.

Values in, values out: nothing here touches guest memory, a queue, a policy or the host.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from balloon_plugin.events import ByteOrder, Translation
from balloon_plugin.layouts import VIRTIO_BALLOON_CONFIG

__all__ = [
    "MAX_BUFFER_BYTES",
    "ConfigSpace",
    "decode",
    "reads_target",
    "translate",
    "translate_actual",
]

MAX_BUFFER_BYTES = 65536
"""Bytes of page numbers read from one buffer; what follows is ignored.

Linux sends 1 KiB, Windows 4 KiB (512 slots of 8 bytes), macOS 16 KiB a segment: 64 KiB
is out of reach for a real driver, and small enough that no buffer is slow.
"""

_CONFIG = VIRTIO_BALLOON_CONFIG
# The last, most significant byte of ``actual``: D6, VIRTIO 1.3 §5.5.6.2 legacy, "SHOULD
# NOT use the value until the last, most significant byte is written".
_ACTUAL = slice(_CONFIG.offsets["actual"], _CONFIG.offsets["free_page_hint_cmd_id"])
_POISON = slice(_CONFIG.offsets["poison_val"], _CONFIG.size)
_END_OF_TARGET = _CONFIG.offsets["actual"]
_UNITS = {ByteOrder.LITTLE: "<", ByteOrder.BIG: ">"}


def reads_target(offset: int, size: int) -> bool:
    """Return whether an access takes in the last byte of ``num_pages``.

    Legacy transports read byte by byte in ascending order, so the last byte is where
    the driver has the whole value.
    """
    return offset < _END_OF_TARGET <= offset + size


def decode(data: bytes, order: ByteOrder) -> tuple[int, ...]:
    """Return the 32-bit page numbers of a buffer (VIRTIO 1.3 §5.5.6).

    Byte order is that of the queue (rule 12): the specification is silent, practice is
    guest-native on legacy and little-endian with VERSION_1. A tail of fewer than four
    bytes is not a page number.
    """
    count = len(data) // 4
    return struct.unpack(f"{_UNITS[order]}{count}I", data[: count * 4])


def translate(pfns: Sequence[int], translation: Translation) -> Sequence[int]:
    """Return the page numbers that a driver meant, in units of its own pages."""
    pfns = pfns[:: translation.slot_entries]
    if translation.swap_pfns:
        swapped = array("I", pfns)
        swapped.byteswap()
        pfns = swapped
    return pfns


def translate_actual(actual: int, translation: Translation) -> int:
    """Return in 4 KiB pages what a driver meant by its ``actual``."""
    if translation.swap_actual:
        actual = int.from_bytes(actual.to_bytes(4, "little"), "big")
    return actual * translation.pages_per_unit


@dataclass(slots=True)
class ConfigSpace:
    """The configuration space, as the driver writes it (VIRTIO 1.3 §5.5.4).

    Little-endian even for a big-endian legacy guest (D3). ``num_pages`` is not kept
    here: it is the policy's, and never the driver's to write (rule 5).

    :ivar actual: pages that the driver last said are in the balloon, unclamped.
    :ivar poison_val: what the driver says that it fills free pages with.
    :ivar target: what the driver has read as ``num_pages``: of one that changes while
        it is read byte by byte the driver sees a mixture.
    :ivar size: bytes in the space, which depend on what is offered.
    """

    actual: int = 0
    poison_val: int = 0
    target: int = 0
    size: int = _CONFIG.size
    _written: bytearray = field(default_factory=lambda: bytearray(_CONFIG.size))

    def save(self) -> dict[str, Any]:
        """Return the fields, and the bytes of those that are half written."""
        return {
            "config": self._written.hex(),
            "actual": self.actual,
            "poison_val": self.poison_val,
            "target": self.target,
        }

    @classmethod
    def load(cls, state: dict[str, Any]) -> ConfigSpace:
        """Return the space that :meth:`save` described."""
        written = bytearray.fromhex(state["config"])
        fields = state["actual"], state["poison_val"], state["target"]
        return cls(*fields, _written=written)

    def read(self, offset: int, size: int, num_pages: int, command: int = 0) -> bytes:
        """Return exactly ``size`` bytes; those outside the space are zero.

        :param num_pages: the target to advertise.
        :param command: what to show as ``free_page_hint_cmd_id``.
        """
        fields = num_pages, self.actual, command, self.poison_val
        part = _CONFIG.little.pack(*fields)[: self.size][offset : offset + size]
        self._note_target(offset, part)
        return part + bytes(size - len(part))

    def _note_target(self, offset: int, part: bytes) -> None:
        """Note which bytes of ``num_pages`` the driver saw now."""
        if offset < _END_OF_TARGET:
            target = bytearray(self.target.to_bytes(_END_OF_TARGET, "little"))
            target[offset : offset + len(part)] = part
            self.target = int.from_bytes(target[:_END_OF_TARGET], "little")

    def write(self, offset: int, data: bytes) -> bool:
        """Take bytes of the driver; return whether ``actual`` is complete with them."""
        data = data[: max(0, self.size - offset)]
        end = offset + len(data)
        self._written[offset:end] = data
        if _touches_last(_POISON, offset, end):
            self.poison_val = int.from_bytes(self._written[_POISON], "little")
        if not _touches_last(_ACTUAL, offset, end):
            return False
        self.actual = int.from_bytes(self._written[_ACTUAL], "little")
        return True


def _touches_last(field_: slice, offset: int, end: int) -> bool:
    return bool(offset < field_.stop <= end)
