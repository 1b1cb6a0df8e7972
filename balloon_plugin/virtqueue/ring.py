"""A virtqueue as its driver laid it out, and as the two sides agreed to use it.

Knows what was negotiated; does not touch memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from balloon_plugin.events import ByteOrder
from balloon_plugin.layouts import Feature

__all__ = ["RING_FEATURES", "Ring"]

_INDIRECT: Final = Feature.VIRTIO_RING_F_INDIRECT_DESC.mask
_EVENT_IDX: Final = Feature.VIRTIO_RING_F_EVENT_IDX.mask
_PACKED: Final = Feature.VIRTIO_F_RING_PACKED.mask
_VERSION_1: Final = Feature.VIRTIO_F_VERSION_1.mask

RING_FEATURES: Final = _INDIRECT | _EVENT_IDX | _PACKED
"""All that is served here, and that a host may therefore offer."""


@dataclass(frozen=True, slots=True)
class Ring:
    """Where a queue lies, and in which form.

    The three addresses are guest-physical ones, or a front end's own.

    :ivar size: entries.
    :ivar desc: descriptor table, or descriptor ring.
    :ivar avail: available ring, or what the driver suppresses (the driver area).
    :ivar used: used ring, or what the device suppresses (the device area).
    :ivar features: the bits that the driver accepted, all of them.
    :ivar native: byte order of the guest's CPU.
    """

    size: int
    desc: int
    avail: int
    used: int
    features: int
    native: ByteOrder

    @property
    def byte_order(self) -> ByteOrder:
        """Of the ring and of page numbers (rule 12, VIRTIO 1.3 §2.7.3).

        The guest's own on legacy, little-endian with VERSION_1.
        """
        modern = self.features & _VERSION_1
        return ByteOrder.LITTLE if modern else self.native

    @property
    def indirect(self) -> bool:
        """Whether a descriptor may refer to a table of others."""
        return bool(self.features & _INDIRECT)

    @property
    def event_idx(self) -> bool:
        """Whether each side says at which entry it wants to be notified."""
        return bool(self.features & _EVENT_IDX)

    @property
    def packed(self) -> bool:
        """Whether it is a packed ring."""
        return bool(self.features & _PACKED)
