"""One engine for all balloon drivers: what the kernel's code does, in its order.

What differs between kernels is in a
:class:`~balloon_plugin.guests.traits.DriverProfile`; read the methods here beside the
functions of ``drivers/virtio/virtio_balloon.c``.

The driver runs in steps, one for each access that a host could see, so that a host can
come between any two of them. It waits for ever on a buffer that is not returned. When
it dies of what it does, that is recorded, not raised.
"""

from __future__ import annotations

import enum
from typing import Final

from balloon_plugin.guests.access import ConfigSpace
from balloon_plugin.guests.balloon import Balloon
from balloon_plugin.guests.channel import Channel
from balloon_plugin.guests.kernel import Kernel
from balloon_plugin.guests.oops import Oops
from balloon_plugin.guests.stats import Stats
from balloon_plugin.guests.steps import Steps
from balloon_plugin.guests.traits import Circumstance, Engine, GuestProfile
from balloon_plugin.guests.transport import Transport
from balloon_plugin.layouts import PAGE_SIZE, Feature

__all__ = ["Driver"]

_POISON_VAL: Final = bytes(4)
"""What init_on_free fills pages with."""

_STATS_VQ: Final = Feature.VIRTIO_BALLOON_F_STATS_VQ.mask
_OOM: Final = Feature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM.mask
_POISON: Final = Feature.VIRTIO_BALLOON_F_PAGE_POISON.mask
_VERSION_1: Final = Feature.VIRTIO_F_VERSION_1.mask
_IDLE_QUEUES: Final = (
    Feature.VIRTIO_BALLOON_F_FREE_PAGE_HINT.mask,
    Feature.VIRTIO_BALLOON_F_REPORTING.mask,
)
"""Features whose queues are set up and then left alone."""


class _Request(enum.Enum):
    REMOVE = "the module is being removed"
    FREEZE = "the guest hibernates"
    THAW = "the guest is back"


class Driver:
    """A balloon driver, loaded but not run yet.

    :param profile: how it behaves, and on what CPU and bus.
    :param kernel: the kernel that it is in.
    :param transport: the bus to its device.
    :param circumstance: what is special about this boot.

    :ivar balloon: what it has taken.
    :ivar accepted: the feature bits that it accepted.
    :ivar oops: what it died of, or ``None``.
    """

    def __init__(
        self,
        profile: GuestProfile,
        kernel: Kernel,
        transport: Transport,
        circumstance: Circumstance,
    ) -> None:
        first_batch = circumstance.first_batch
        self.balloon = Balloon(profile, kernel, transport, first_batch)
        self.accepted = 0
        self.oops: str | None = None
        self._profile = profile
        self._traits = profile.driver
        self._kernel = kernel
        self._transport = transport
        self._circumstance = circumstance
        self._config = ConfigSpace(transport, circumstance.access or profile.access)
        self._stats: Stats | None = None
        self._request: _Request | None = None
        self._pressure = 0
        self._life = self._live()

    def step(self) -> bool:
        """Do one thing that a host could see; return whether there was any to do."""
        try:
            return next(self._life, False)
        except Oops as oops:
            self.oops = str(oops)
            return False

    # --- what a guest's user or its memory can ask for ---

    def remove(self) -> None:
        """Remove the module, as soon as it runs."""
        self._request = _Request.REMOVE

    def freeze(self) -> None:
        """Hibernate, as soon as it runs."""
        self._request = _Request.FREEZE

    def thaw(self) -> None:
        """Return from hibernation."""
        self._request = _Request.THAW

    def deflate_on_oom(self, units: int) -> None:
        """Be short of memory: a driver with DEFLATE_ON_OOM gives back so many units."""
        if self.accepted & _OOM:
            self._pressure = units

    # --- life ---

    def _live(self) -> Steps[None]:
        if self._traits.engine is Engine.ABSENT:
            return
        yield from self._bind()
        work = self._work()
        if self._traits.early_start:
            yield from self._start_early(work)
        yield from self._ready()
        yield from work
        while self._request is _Request.FREEZE:
            yield from self._sleep_and_wake()
            yield from self._work(restored=self._traits.has_freeze)
        yield from self._leave(write_actual=self._traits.zero_on_remove)

    def _bind(self) -> Steps[None]:
        """Reset, negotiate, set up the queues (``virtio_dev_probe``, ``init_vqs``)."""
        self._transport.reset()
        yield True
        self._kernel.empty_heap()
        known = self._traits.features
        if not self._circumstance.page_poison:
            known &= ~_POISON
        self.accepted = self._transport.offered_features() & known
        self._transport.accept_features(self.accepted)
        yield True
        self._set_up_queues()
        yield True
        if self.accepted & _POISON:
            yield from self._config.write("poison_val", _POISON_VAL)

    def _set_up_queues(self) -> None:
        """Start the queues of accepted features; Linux numbers them without gaps."""
        self.balloon.connect(self.accepted)
        order = self._profile.ring_order(modern=bool(self.accepted & _VERSION_1))
        count = 2
        if self.accepted & _STATS_VQ:
            self._stats = Stats(self._transport, self._kernel, order)
            if self._traits.primes_stats:
                self._stats.answer()
            else:
                self._stats.prime_with_garbage()
            count += 1
        for feature in _IDLE_QUEUES:
            if self.accepted & feature:
                Channel(self._transport, self._kernel, count, order, PAGE_SIZE)
                count += 1

    def _ready(self) -> Steps[None]:
        self._transport.device_ready()
        yield True

    def _start_early(self, work: Steps[None]) -> Steps[None]:
        """Let the thread run before DRIVER_OK: the bus sets it after the probe."""
        enough = self._circumstance.early_buffers
        while self.balloon.buffers < enough and next(work, False):
            yield True

    def _leave(self, *, write_actual: bool) -> Steps[None]:
        """Empty the balloon and reset the device (``remove_common``)."""
        while self.balloon.size:
            yield from self.balloon.leak(self.balloon.size)
        if write_actual:
            yield from self._write_actual()
        self._transport.reset()
        yield True

    def _sleep_and_wake(self) -> Steps[None]:
        """Hibernate and come back (``virtballoon_freeze``, ``virtballoon_restore``)."""
        if self._traits.has_freeze:
            yield from self._leave(write_actual=True)
        while self._request is _Request.FREEZE:
            yield False
        self._request = None
        if self._traits.has_freeze:
            yield from self._bind()
            yield from self._ready()

    # --- work ---

    def _work(self, *, restored: bool = False) -> Steps[None]:
        if self._traits.engine is Engine.KTHREAD:
            return self._balloon_thread(restored=restored)
        return self._worker(restored=restored)

    def _balloon_thread(self, *, restored: bool) -> Steps[None]:
        """Run the kthread of kernels to 4.5 (``balloon``)."""
        if restored:
            yield from self._pass((yield from self._towards_target()))
        while self._request is None:
            diff = yield from self._wait_for_change()
            yield from self._answer_stats()
            yield from self._pass(diff)

    def _wait_for_change(self) -> Steps[int]:
        """Sleep while the target asks for nothing; return what it asks for.

        Statistics, freezing and stopping wake the thread too, and after them it writes
        ``actual`` though nothing changed.
        """
        while True:
            # First: an interrupt after this wakes the thread again.
            self._transport.take_config_interrupt()
            diff = yield from self._towards_target()
            if diff or self._stats_asked() or self._request:
                return diff
            while not (
                self._transport.take_config_interrupt()
                or self._stats_asked()
                or self._request
            ):
                yield from self._idle()

    def _worker(self, *, restored: bool) -> Steps[None]:
        """Run the work items of kernels from 4.6 on."""
        queued = False
        if self._traits.reads_at_start:
            queued = bool((yield from self._towards_target()))
        if restored:
            yield from self._write_actual()
        while self._request is None:
            if (yield from self._answer_stats()):
                continue
            if self._transport.take_config_interrupt() or queued:
                queued = yield from self._update_balloon_size()
            else:
                yield from self._idle()

    def _update_balloon_size(self) -> Steps[bool]:
        """Do one work item; return whether it queues itself again."""
        diff = yield from self._towards_target()
        # 5.8 and later: if (!diff) return
        if not diff and not self._traits.idle_writes:
            return False
        return diff != (yield from self._pass(diff))

    def _pass(self, diff: int) -> Steps[int]:
        """Move one batch towards the target and write ``actual``; return how many."""
        moved = 0
        if diff > 0:
            moved = yield from self.balloon.fill(diff)
        elif diff < 0:
            moved = -(yield from self.balloon.leak(-diff))
        yield from self._relieve()
        yield from self._write_actual()
        return moved

    def _idle(self) -> Steps[None]:
        yield from self._relieve()
        yield False

    def _relieve(self) -> Steps[None]:
        """Give pages back to a guest out of memory (``virtballoon_oom_notify``)."""
        units, self._pressure = self._pressure, 0
        if units:
            yield from self.balloon.leak(units)
            yield from self._write_actual()

    # --- what it says to the device ---

    def _towards_target(self) -> Steps[int]:
        """Read the target; return how far it is from the balloon's size."""
        data = yield from self._config.read("num_pages")
        order = self._traits.target_order.of(self._profile.byte_order)
        target = int.from_bytes(data, order.value)
        if self._traits.aligns_target:
            pieces = self._profile.page_size // PAGE_SIZE
            target = -(-target // pieces) * pieces
        diff = target - self.balloon.size
        # 2.6.25-2.6.26: "return v - vb->num_pages" in u32
        return diff & 0xFFFFFFFF if self._traits.unsigned_diff else diff

    def _write_actual(self) -> Steps[None]:
        if self._traits.writes_actual:
            order = self._traits.actual_order.of(self._profile.byte_order)
            data = self.balloon.size.to_bytes(4, order.value)
            yield from self._config.write("actual", data)

    def _stats_asked(self) -> bool:
        return self._stats is not None and self._stats.asked()

    def _answer_stats(self) -> Steps[bool]:
        """Send statistics if they are asked for; return whether they were."""
        if self._stats is None or not self._stats.asked():
            return False
        self._stats.answer()
        yield True
        return True
