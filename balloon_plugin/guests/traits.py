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
from balloon_plugin.guests.form import RingForm
from balloon_plugin.layouts import PAGE_SIZE, Feature

__all__ = [
    "Allocation",
    "Conditions",
    "DriverProfile",
    "Engine",
    "GuestProfile",
    "Lie",
    "Order",
    "PfnForm",
    "Start",
]


class Engine(enum.Enum):
    """What carries the driver's work."""

    KTHREAD = "a thread that reads its target before each sleep"
    """Linux to 4.5, FreeBSD, NetBSD. It reads again after each batch, on a config
    interrupt, on a statistics request and when it is frozen or stopped."""

    WORKQUEUE = "work that is queued by an interrupt, or by itself until it is done"
    """Linux from 4.6 (fad7b7b27b6a). Statistics are another work item."""

    TASK = "the same, but after a batch that brought nothing it does not try again"
    """OpenBSD."""

    EVENT = "one pass for each interrupt, its own buffers' included"
    """Windows."""

    APPLE = "its own, see :mod:`balloon_plugin.guests.apple`"

    ABSENT = "nothing: no driver is loaded"


class Start(enum.Enum):
    """What becomes of the target before the first config interrupt."""

    ACTS = "it is read, and acted on"
    READS = "it is read and not acted on"
    BLIND = "it is not read"


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


class Lie(enum.Enum):
    """What a hostile driver sends once it is believed."""

    NONE = "nothing but the truth"
    PLAIN = "numbers twice, outside RAM, and of pages in use"
    PERFECT = "different numbers inside RAM, of pages in use"


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverProfile:
    """How the driver of one kernel behaves, whatever the CPU.

    :ivar source: where this was read.
    :ivar engine: what carries its work.
    :ivar start: what becomes of the target before the first config interrupt.
    :ivar features: the bits that it accepts if offered, VERSION_1 and ring bits
        included.
    :ivar early_start: whether it works before DRIVER_OK is set.
    :ivar idle_writes: whether a wake-up that finds nothing to do writes ``actual``:
        in Linux to 4.5 one for statistics or to stop, from 4.6 to 4.19 any.
    :ivar writes_actual: whether it ever does.
    :ivar asks_device: whether it takes its balloon's size from ``actual`` as the device
        shows it, instead of counting.
    :ivar primes_stats: whether its first statistics have real values (4.19).
    :ivar target_order: how it understands ``num_pages`` on a legacy bus.
    :ivar actual_order: how it writes ``actual`` on a legacy bus.
    :ivar config_order_v1: how it understands both with VERSION_1.
    :ivar pfn_order_v1: order of page numbers with VERSION_1; on legacy it is native.
    :ivar pfn_form: how a page becomes numbers.
    :ivar pfn_size: bytes of one number on the wire.
    :ivar full_buffers: whether it always sends a whole buffer, what was in it before
        included.
    :ivar counts_guest_pages: whether ``num_pages`` and ``actual`` count guest pages.
    :ivar aligns_target: whether a target is rounded up to whole guest pages (07622bd).
    :ivar unsigned_diff: whether a target below the balloon's size looks like a huge
        one.
    :ivar frees_by_wire: whether deflating frees the pages that the numbers on the wire
        denote in the guest's own counting, not those that were taken.
    :ivar release_before_tell: whether pages are freed before the device is told, unless
        MUST_TELL_HOST was accepted.
    :ivar fifo: whether the page taken first is the first to be given back.
    :ivar whole_batches: whether it gives back all that it once took in one batch.
    :ivar compacts: whether it exchanges a page when the kernel moves it (3.8).
    :ivar batch: most units in one buffer.
    :ivar all_or_nothing: whether a batch that is not to be had in full is not taken.
    :ivar fails_silently: whether a batch that brought nothing leaves no trace.
    :ivar retry: seconds that it sleeps when no page is free.
    :ivar sends_first: whether it sends what it has before it sleeps.
    :ivar pause: seconds that it sleeps between two batches.
    :ivar removable: whether it can be unloaded.
    :ivar zero_on_remove: whether removing the driver writes ``actual`` = 0.
    :ivar has_freeze: whether it empties the balloon before the guest hibernates.
    :ivar lie: what it sends once it is believed.
    """

    source: str
    engine: Engine = Engine.WORKQUEUE
    start: Start = Start.ACTS
    features: int = 0
    early_start: bool = False
    idle_writes: bool = False
    writes_actual: bool = True
    asks_device: bool = False
    primes_stats: bool = True
    target_order: Order = Order.LITTLE
    actual_order: Order = Order.LITTLE
    config_order_v1: Order = Order.LITTLE
    pfn_order_v1: Order = Order.LITTLE
    pfn_form: PfnForm = PfnForm.RIGHT
    pfn_size: int = 4
    full_buffers: bool = False
    counts_guest_pages: bool = False
    aligns_target: bool = False
    unsigned_diff: bool = False
    frees_by_wire: bool = False
    release_before_tell: bool = False
    fifo: bool = False
    whole_batches: bool = False
    compacts: bool = False
    batch: int = 256
    all_or_nothing: bool = False
    fails_silently: bool = False
    retry: float = 0.2
    sends_first: bool = False
    pause: float = 0.0
    removable: bool = True
    zero_on_remove: bool = True
    has_freeze: bool = True
    lie: Lie = Lie.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestProfile:
    """One named guest: a driver on a CPU on a bus, and the truth about it.

    :ivar name: what people call it by, ``linux-3.3-be-64k``.
    :ivar driver: how it behaves.
    :ivar byte_order: of the CPU.
    :ivar page_size: of the kernel, in bytes.
    :ivar modern: whether the bus can carry VERSION_1.
    :ivar access: how the bus reaches the configuration space.
    :ivar truth: GOOD if the driver is safe to believe as it is, BUGGY if it is unsafe
        or of no use untreated, UNDECIDED where there is no driver to judge.
    :ivar defects: all bugs that it has on this CPU and bus.
    :ivar unusable: why no host can make its balloon go up and down, or nothing.
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
    unusable: str = ""
    ram_start: int = 0
    second_hand: str = ""

    def ring_form(self, accepted: int) -> RingForm:
        """Return how rings are with these features (§2.7.3: native on legacy)."""
        modern = accepted & Feature.VIRTIO_F_VERSION_1.mask
        return RingForm(
            ByteOrder.LITTLE if modern else self.byte_order,
            packed=bool(accepted & Feature.VIRTIO_F_RING_PACKED.mask),
            event_idx=bool(accepted & Feature.VIRTIO_RING_F_EVENT_IDX.mask),
        )

    def pfn_order(self, *, modern: bool) -> ByteOrder:
        """Return the byte order of this driver's page numbers, rightly or wrongly."""
        order = self.driver.pfn_order_v1 if modern else Order.NATIVE
        return order.of(self.byte_order)

    def target_order(self, *, modern: bool) -> ByteOrder:
        """Return the byte order in which this driver reads ``num_pages``."""
        driver = self.driver
        order = driver.config_order_v1 if modern else driver.target_order
        return order.of(self.byte_order)

    def actual_order(self, *, modern: bool) -> ByteOrder:
        """Return the byte order in which this driver writes ``actual``."""
        driver = self.driver
        order = driver.config_order_v1 if modern else driver.actual_order
        return order.of(self.byte_order)


class Allocation(enum.Enum):
    """Where the kernel takes free pages from, one after the other."""

    TOP = "from the upper end of RAM, upwards within blocks of 4 MiB"
    """What Linux does on an empty machine: it hands its memory to the buddy allocator
    from below, each block before those that came earlier, and splits a block from its
    lower end. The first block is not whole: something was taken from it before."""

    CONTIGUOUS = "side by side, upwards from the kernel's own"
    """Linux from 5.10 (7fef431be9c9, a block goes behind those that came earlier)."""

    SCATTERED = "from all over RAM"
    """A machine that has been up for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What can be different about a guest from one boot to the next.

    :ivar first_batch: guest pages that the first inflation can get, as when memory is
        short; ``None`` for no limit.
    :ivar most: guest pages that can ever be in the balloon; ``None`` for no limit.
    :ivar allocation: where free pages come from.
    :ivar seed: of the scattering.
    :ivar access: another bus than the profile's, or ``None``.
    :ivar early_buffers: how many buffers an early starter sends before DRIVER_OK.
    :ivar queue_align: bytes to which queues happen to be aligned; pages of the guest's
        own size they are on anyway.
    :ivar page_poison: whether the kernel poisons free pages, so that its driver accepts
        PAGE_POISON and writes ``poison_val`` before all else (6.12).
    """

    first_batch: int | None = None
    most: int | None = None
    allocation: Allocation = Allocation.TOP
    seed: int = 0
    access: Access | None = None
    early_buffers: int = 1
    queue_align: int = PAGE_SIZE
    page_poison: bool = False
