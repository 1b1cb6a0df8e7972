"""The life of a balloon driver, from its probe to its removal.

What it does in between is :mod:`~balloon_plugin.guests.work`; what differs between
kernels is in a :class:`~balloon_plugin.guests.traits.DriverProfile`.

The driver runs in steps, one for each access that a host could see, so that a host can
come between any two of them. It waits for ever on a buffer that is not returned. When
it dies of what it does, that is recorded, not raised.
"""

from __future__ import annotations

from typing import Final

from balloon_plugin.guests import apple
from balloon_plugin.guests.access import ConfigSpace
from balloon_plugin.guests.balloon import Balloon
from balloon_plugin.guests.free_pages import Hinter, Reporter
from balloon_plugin.guests.kernel import Kernel
from balloon_plugin.guests.oops import Oops
from balloon_plugin.guests.stats import Stats
from balloon_plugin.guests.steps import Steps
from balloon_plugin.guests.traits import Conditions, Engine, GuestProfile
from balloon_plugin.guests.transport import Transport
from balloon_plugin.guests.work import Request, Work
from balloon_plugin.layouts import Feature

__all__ = ["Driver"]

_POISON_VAL: Final = bytes(4)
"""What init_on_free fills pages with."""

_STATS_VQ: Final = Feature.VIRTIO_BALLOON_F_STATS_VQ.mask
_OOM: Final = Feature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM.mask
_POISON: Final = Feature.VIRTIO_BALLOON_F_PAGE_POISON.mask
_HINTING: Final = Feature.VIRTIO_BALLOON_F_FREE_PAGE_HINT.mask
_REPORTING: Final = Feature.VIRTIO_BALLOON_F_REPORTING.mask


class Driver:
    """A balloon driver, loaded but not run yet.

    :param profile: how it behaves, and on what CPU and bus.
    :param kernel: the kernel that it is in.
    :param transport: the bus to its device.
    :param conditions: what is special about this boot.

    :ivar balloon: what it has taken.
    :ivar accepted: the feature bits that it accepted.
    :ivar oops: what it died of, or ``None``.
    :ivar removed: whether its removal has been carried out.
    """

    def __init__(
        self,
        profile: GuestProfile,
        kernel: Kernel,
        transport: Transport,
        conditions: Conditions,
    ) -> None:
        self.balloon = Balloon(profile, kernel, transport, conditions)
        self.accepted = 0
        self.oops: str | None = None
        self.removed = False
        self._profile = profile
        self._traits = profile.driver
        self._kernel = kernel
        self._transport = transport
        self._conditions = conditions
        self._config = ConfigSpace(transport, conditions.access or profile.access)
        self._work = Work(profile, transport, self._config, self.balloon)
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
        self._work.request = Request.REMOVE

    def freeze(self) -> None:
        """Hibernate, as soon as it runs."""
        self._work.request = Request.FREEZE

    def thaw(self) -> None:
        """Return from hibernation."""
        self._work.request = Request.THAW

    def deflate_on_oom(self, units: int) -> bool:
        """Be short of memory: a driver with DEFLATE_ON_OOM gives back so many units.

        :returns: whether it is one.
        """
        if not self.accepted & _OOM:
            return False
        self._work.pressure = units
        return True

    def move_pages(self, count: int) -> None:
        """Let the kernel compact its memory, if it can have balloon pages moved."""
        if self._traits.compacts:
            self._work.moves = count

    # --- life ---

    def _live(self) -> Steps[None]:
        if self._traits.engine is Engine.ABSENT:
            return
        yield from self._bind()
        apples = self._traits.engine is Engine.APPLE
        work = apple.run(self._work, self.balloon) if apples else self._work.run()
        if self._traits.early_start:
            yield from self._start_early(work)
        yield from self._ready()
        yield from work
        while self._work.request is Request.FREEZE:
            yield from self._sleep_and_wake()
            yield from self._work.run(restored=self._traits.has_freeze)
        yield from self._leave(write_actual=self._traits.zero_on_remove)
        self.removed = True

    def _bind(self) -> Steps[None]:
        """Reset, negotiate, set up the queues (``virtio_dev_probe``, ``init_vqs``)."""
        self._transport.reset()
        yield True
        self._kernel.empty_heap()
        known = self._traits.features
        if not self._conditions.page_poison:
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
        self._work.connect(self.accepted)
        form = self._profile.ring_form(self.accepted)
        count = 2
        self._work.stats = self._work.hinter = self._work.reporter = None
        if self.accepted & _STATS_VQ:
            self._work.stats = stats = Stats(self._transport, self._kernel, form)
            if self._traits.primes_stats:
                stats.answer()
            else:
                stats.prime_with_garbage()
            count += 1
        if self.accepted & _HINTING:
            self._work.hinter = Hinter(
                self._transport, self._config, self._kernel, count, form
            )
            count += 1
        if self.accepted & _REPORTING:
            self._work.reporter = Reporter(self._transport, self._kernel, count, form)

    def _ready(self) -> Steps[None]:
        self._transport.device_ready()
        yield True

    def _start_early(self, work: Steps[None]) -> Steps[None]:
        """Let the thread run before DRIVER_OK: the bus sets it after the probe."""
        enough = self._conditions.early_buffers
        while self.balloon.buffers < enough and next(work, False):
            yield True

    def _leave(self, *, write_actual: bool) -> Steps[None]:
        """Empty the balloon and reset the device (``remove_common``)."""
        yield from self._work.leave(write_actual=write_actual)
        self._transport.reset()
        yield True

    def _sleep_and_wake(self) -> Steps[None]:
        """Hibernate and come back (``virtballoon_freeze``, ``virtballoon_restore``)."""
        if self._traits.has_freeze:
            yield from self._leave(write_actual=True)
        while self._work.request is Request.FREEZE:
            yield False
        self._work.request = None
        if self._traits.has_freeze:
            yield from self._bind()
            yield from self._ready()
