"""What machine the simulated host simulates, and its RAM."""

from __future__ import annotations

import contextlib
import mmap
from dataclasses import dataclass
from typing import Final

from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder
from balloon_plugin.layouts import PAGE_SIZE, Feature

__all__ = ["Setup", "map_ram"]

_HOST_PAGE: Final = max(PAGE_SIZE, mmap.PAGESIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What machine to simulate, and what its host knows of the guest.

    :ivar ram_size: bytes of RAM, a multiple of ``host_page_size``. Only what is touched
        costs memory.
    :ivar ram_start: guest-physical address of the first byte (0 on pseries and PCs,
        0x40000000 on aarch64), a multiple of ``host_page_size``.
    :ivar byte_order: of the CPU, and so of the queues without VERSION_1.
    :ivar tell_byte_order: whether the device is told.
    :ivar page_size: the guest's, if the device is to be told; ``None`` if not.
    :ivar host_page_size: what the device is told that it can give back at the least.
    :ivar legacy: whether the bus is one without VERSION_1.
    :ivar queue_size: entries in each queue.
    :ivar ring_features: of :data:`~balloon_plugin.virtqueue.RING_FEATURES`, those that
        the bus offers. By default only the one that the oldest Linux but a few knows:
        what a driver accepts is evidence, so that another set makes other results.
    :ivar holds_early_kicks: whether a legacy driver's kicks before DRIVER_OK wait for
        it, as a vhost-user front end has them wait; those with VERSION_1 always do.
    """

    ram_size: int = 64 << 20
    ram_start: int = 0
    byte_order: ByteOrder = ByteOrder.LITTLE
    tell_byte_order: bool = True
    page_size: int | None = None
    host_page_size: int = _HOST_PAGE
    legacy: bool = True
    queue_size: int = 128
    ring_features: int = Feature.VIRTIO_RING_F_INDIRECT_DESC.mask
    holds_early_kicks: bool = False


def map_ram(setup: Setup) -> mmap.mmap:
    """Map private memory, of which no page exists before it is touched.

    :raises HostError: if there cannot be such a machine.
    """
    page = setup.host_page_size
    if setup.ram_size <= 0 or setup.ram_size % page or setup.ram_start % page:
        raise HostError(
            f"RAM of {setup.ram_size:#x} bytes at {setup.ram_start:#x} is not made of "
            f"whole host pages of {page:#x}: round both"
        )
    ram = mmap.mmap(-1, setup.ram_size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # A huge page would be cleared as a whole for one word of it, and not be given back
    # in pieces. A kernel without huge pages says EINVAL, and is right.
    with contextlib.suppress(OSError):
        ram.madvise(mmap.MADV_NOHUGEPAGE)
    return ram
