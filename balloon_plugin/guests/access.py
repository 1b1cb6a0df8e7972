"""How wide a driver's access to the configuration space is on the bus.

The width is the bus's, not the driver's: ``vp_set`` of legacy PCI is four ``iowrite8``
in ascending order from 2.6.32 (virtio_pci.c:148-158) to 6.12
(virtio_pci_legacy.c:64-76), and legacy mmio does the same (virtio_mmio.c:188-195). So a
device sees an ``actual`` of 256 arrive as 0, 256, 256, 256. Each access is a step of
its own, for a host to come between.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, TypeAlias

from balloon_plugin.guests.steps import Steps
from balloon_plugin.guests.transport import Transport
from balloon_plugin.layouts import VIRTIO_BALLOON_CONFIG

__all__ = ["Access", "ConfigSpace"]


class Access(enum.Enum):
    """How wide an access is."""

    BYTEWISE = "a byte at a time, ascending"
    """Legacy PCI and legacy mmio."""

    WORD = "as wide as the field"
    """Modern PCI and mmio."""

    CHANNEL = "from byte 0 to the end of the field"
    """Channel I/O of s390 (6.12 virtio_ccw.c:958-990): a write of ``actual`` repeats
    ``num_pages`` as it was last read."""

    WHOLE = "the whole space, whatever was written in it"
    """What QEMU's vhost-user front end makes of a write of one field."""


Span: TypeAlias = tuple[int, int]
"""Offset and width of one access."""

_ACCESSES: Final[dict[Access, Callable[[int, int], list[Span]]]] = {
    Access.BYTEWISE: lambda at, size: [(byte, 1) for byte in range(at, at + size)],
    Access.WORD: lambda at, size: [(at, size)],
    Access.CHANNEL: lambda at, size: [(0, at + size)],
    Access.WHOLE: lambda _at, _size: [(0, VIRTIO_BALLOON_CONFIG.size)],
}


class ConfigSpace:
    """The device's configuration space, through a bus of a certain width."""

    def __init__(self, transport: Transport, access: Access) -> None:
        self._transport = transport
        self._spans = _ACCESSES[access]
        # As last read or written: where accesses are wider than the field, the rest of
        # a write comes from here, and is stale.
        self._copy = bytearray(VIRTIO_BALLOON_CONFIG.size)

    def read(self, field: str) -> Steps[bytes]:
        """Read one field of ``virtio_balloon_config``."""
        at, size = _place(field)
        for start, width in self._spans(at, size):
            data = self._transport.config_read(start, width)
            self._copy[start : start + width] = data
            yield True
        return bytes(self._copy[at : at + size])

    def write(self, field: str, data: bytes) -> Steps[None]:
        """Write one field of ``virtio_balloon_config``."""
        at, size = _place(field)
        self._copy[at : at + size] = data
        for start, width in self._spans(at, size):
            part = bytes(self._copy[start : start + width])
            self._transport.config_write(start, part)
            yield True


def _place(field: str) -> Span:
    return VIRTIO_BALLOON_CONFIG.offsets[field], 4
