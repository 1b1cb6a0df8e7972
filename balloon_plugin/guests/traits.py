"""Everything in which one guest driver differs from another, as frozen values.

A driver is not a class of its own but a row of these traits; one engine
(:mod:`~balloon_plugin.guests.driver`) runs them all. A default is what a correct and
current driver does, so a row names only what is special about it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from balloon_plugin.events import ByteOrder, Defect, Judgement
from balloon_plugin.guests.access import Access

__all__ = [
    "Circumstance",
    "DriverProfile",
    "Engine",
    "GuestProfile",
    "Order",
    "PfnForm",
]


class Engine(enum.Enum):
    """What carries the driver's work."""

    KTHREAD = "a thread that reads its target before each sleep"
    """To 4.5. It reads again after each batch, on a config interrupt, on a statistics
    request and when it is frozen or stopped, and writes ``actual`` on each of these."""

    WORKQUEUE = "work that is queued by an interrupt, or by itself until it is done"
    """From 4.6 (fad7b7b27b6a). Statistics are another work item."""

    ABSENT = "nothing: no driver is loaded"


class Order(enum.Enum):
    """Byte order of a field as one driver understands it."""

    LITTLE = "little-endian"
    NATIVE = "the guest's own"

    def of(self, guest: ByteOrder) -> ByteOrder:
        """Return the byte order that this is on a guest."""
        return guest if self is Order.NATIVE else ByteOrder.LITTLE


class PfnForm(enum.Enum):
    """How a page becomes page numbers on the wire."""

    RIGHT = "one number for each 4 KiB of the page"
    WRONG_SHIFT = "one number, shifted right where it should be left"
    """2.6.29 to 3.3 (1b4aa2faeca1): 16 pages of 64 KiB have the same number."""
    UNSHIFTED = "one number, the guest's own"
    """2.6.25 to 2.6.28."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverProfile:
    """How the driver of one kernel behaves, whatever the CPU.

    :ivar source: where this was read.
    :ivar engine: what carries its work.
    :ivar features: the bits that it accepts if offered, VERSION_1 and ring bits
        included.
    :ivar early_start: whether it works before DRIVER_OK is set (kthread kernels).
    :ivar reads_at_start: whether it reads its target without a config interrupt.
    :ivar idle_writes: whether a wake-up that finds nothing to do writes ``actual``
        (workqueue kernels to 4.19; kthreads always do).
    :ivar writes_actual: whether it ever does.
    :ivar primes_stats: whether its first statistics have real values (4.19).
    :ivar target_order: how it understands ``num_pages``.
    :ivar actual_order: how it writes ``actual``.
    :ivar pfn_order_v1: order of page numbers with VERSION_1; on legacy it is native.
    :ivar pfn_form: how a page becomes numbers.
    :ivar pfn_size: bytes of one number on the wire.
    :ivar counts_guest_pages: whether ``num_pages`` and ``actual`` count guest pages.
    :ivar aligns_target: whether a target is rounded up to whole guest pages (07622bd).
    :ivar unsigned_diff: whether a target below the balloon's size looks like a huge
        one.
    :ivar frees_by_wire: whether deflating frees the pages that the numbers on the wire
        denote in the guest's own counting, not those that were taken.
    :ivar release_before_tell: whether pages are freed before the device is told, unless
        MUST_TELL_HOST was accepted.
    :ivar batch: most units in one buffer.
    :ivar zero_on_remove: whether removing the driver writes ``actual`` = 0.
    :ivar has_freeze: whether it empties the balloon before the guest hibernates.
    """

    source: str
    engine: Engine = Engine.WORKQUEUE
    features: int = 0
    early_start: bool = False
    reads_at_start: bool = True
    idle_writes: bool = False
    writes_actual: bool = True
    primes_stats: bool = True
    target_order: Order = Order.LITTLE
    actual_order: Order = Order.LITTLE
    pfn_order_v1: Order = Order.LITTLE
    pfn_form: PfnForm = PfnForm.RIGHT
    pfn_size: int = 4
    counts_guest_pages: bool = False
    aligns_target: bool = False
    unsigned_diff: bool = False
    frees_by_wire: bool = False
    release_before_tell: bool = False
    batch: int = 256
    zero_on_remove: bool = True
    has_freeze: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestProfile:
    """One named guest: a driver on a CPU on a bus, and the truth about it.

    :ivar name: what people call it by, ``linux-3.3-be-64k``.
    :ivar driver: how it behaves.
    :ivar byte_order: of the CPU.
    :ivar page_size: of the kernel, in bytes.
    :ivar modern: whether the bus can carry VERSION_1.
    :ivar access: how the bus reaches the configuration space.
    :ivar truth: GOOD if the driver is safe to believe as it is, BUGGY if not, UNDECIDED
        where there is no driver to judge.
    :ivar defects: all bugs that it has on this CPU.
    :ivar ram_start: where this platform's RAM begins.
    :ivar second_hand: what of this was not read in source, in a few words.
    """

    name: str
    driver: DriverProfile
    byte_order: ByteOrder
    page_size: int
    modern: bool = False
    access: Access = Access.BYTEWISE
    truth: Judgement
    defects: tuple[Defect, ...] = ()
    ram_start: int = 0
    second_hand: str = ""

    def ring_order(self, *, modern: bool) -> ByteOrder:
        """Return the byte order of rings, with or without VERSION_1 (§2.7.3)."""
        return ByteOrder.LITTLE if modern else self.byte_order

    def pfn_order(self, *, modern: bool) -> ByteOrder:
        """Return the byte order of this driver's page numbers, rightly or wrongly."""
        order = self.driver.pfn_order_v1 if modern else Order.NATIVE
        return order.of(self.byte_order)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstance:
    """What can be different about a guest from one boot to the next.

    :ivar name: what people call it by.
    :ivar first_batch: guest pages that the first inflation can get, as when memory is
        short; ``None`` for no limit.
    :ivar scattered: whether free pages come from all over RAM, not side by side.
    :ivar seed: of the scattering.
    :ivar access: another bus than the profile's, or ``None``.
    :ivar early_buffers: how many buffers an early starter sends before DRIVER_OK.
    :ivar page_poison: whether the kernel poisons free pages, so that its driver accepts
        PAGE_POISON and writes ``poison_val`` before all else (6.12).
    """

    name: str = "usual"
    first_batch: int | None = None
    scattered: bool = False
    seed: int = 0
    access: Access | None = None
    early_buffers: int = 1
    page_poison: bool = False
