"""What a driver does all day: look at its target, move towards it, say where it is.

One engine for each way in which kernels have organised it; read it beside the functions
of ``drivers/virtio/virtio_balloon.c`` that are named here, or of the other systems'
drivers that :mod:`~balloon_plugin.guests.drivers` cites.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

from balloon_plugin.events import ByteOrder
from balloon_plugin.guests.access import ConfigSpace
from balloon_plugin.guests.balloon import Balloon
from balloon_plugin.guests.free_pages import Hinter, Reporter
from balloon_plugin.guests.stats import Stats
from balloon_plugin.guests.steps import Steps
from balloon_plugin.guests.traits import Engine, GuestProfile, Start
from balloon_plugin.guests.transport import Transport
from balloon_plugin.layouts import PAGE_SIZE, Feature

__all__ = ["Request", "Work"]


class Request(enum.Enum):
    """What stops the work."""

    REMOVE = "the module is being removed"
    FREEZE = "the guest hibernates"
    THAW = "the guest is back"


class Work:
    """The work of one driver.

    :param profile: how the driver behaves, and on what CPU.
    :param transport: the bus to its device.
    :param config: the same for its configuration space.
    :param balloon: what it has taken.

    :ivar stats: its statistics, once they were negotiated.
    :ivar reporter: its reports of free pages, likewise.
    :ivar hinter: its hints at them, likewise.
    :ivar request: why it has to stop, or ``None``.
    :ivar pressure: units that it is to give back for want of memory.
    :ivar moves: pages that the kernel wants to have elsewhere.
    """

    def __init__(
        self,
        profile: GuestProfile,
        transport: Transport,
        config: ConfigSpace,
        balloon: Balloon,
    ) -> None:
        self.stats: Stats | None = None
        self.reporter: Reporter | None = None
        self.hinter: Hinter | None = None
        self.request: Request | None = None
        self.pressure = 0
        self.moves = 0
        self._profile = profile
        self._traits = profile.driver
        self._transport = transport
        self._config = config
        self._balloon = balloon
        self._target_order = self._actual_order = ByteOrder.LITTLE

    def connect(self, accepted: int) -> None:
        """Read and write configuration as with these features."""
        modern = bool(accepted & Feature.VIRTIO_F_VERSION_1.mask)
        self._target_order = self._profile.target_order(modern=modern)
        self._actual_order = self._profile.actual_order(modern=modern)

    def run(self, *, restored: bool = False) -> Steps[None]:
        """Work until there is a request.

        :param restored: whether the guest comes back from hibernation.
        """
        if self._traits.engine is Engine.KTHREAD:
            return self._balloon_thread(restored=restored)
        return self._worker(restored=restored)

    # --- a thread ---

    def _balloon_thread(self, *, restored: bool) -> Steps[None]:
        """Run the kthread of kernels to 4.5 (``balloon``)."""
        if restored:
            yield from self._pass((yield from self.towards_target()))
        while self.request is None:
            diff = yield from self._wait_for_change()
            yield from self.answer_stats()
            if diff or self._traits.idle_writes:
                yield from self._pass(diff)
                yield from self._rest()

    def _wait_for_change(self) -> Steps[int]:
        """Sleep while the target asks for nothing; return what it asks for.

        Statistics, freezing and stopping wake the thread too, and after them it writes
        ``actual`` though nothing changed.
        """
        while True:
            # First: an interrupt after this wakes the thread again.
            self._transport.take_config_interrupt()
            diff = yield from self.towards_target()
            if diff or self._stats_asked() or self.request:
                return diff
            while not (
                self._transport.take_config_interrupt()
                or self._stats_asked()
                or self.request
            ):
                yield from self.idle()

    def _rest(self) -> Steps[None]:
        """Sleep between two batches, as the BSDs do."""
        starved = self._balloon.starved and self._traits.sends_first
        self._balloon.starved = False
        seconds = self._traits.retry if starved else self._traits.pause
        if seconds:
            # inflate_done reads both fields again, and acts on them after its sleep.
            yield from self.towards_target()
            yield from self._balloon.sleep(seconds)

    # --- work items ---

    def _worker(self, *, restored: bool) -> Steps[None]:
        """Run the work items of kernels from 4.6 on, and what is like them."""
        queued = False
        if self._traits.start is not Start.BLIND:
            diff = yield from self.towards_target()
            queued = diff != 0 and self._traits.start is Start.ACTS
        if restored:
            yield from self._write_actual()
        while self.request is None:
            if (yield from self.answer_stats()):
                queued |= self._traits.engine is Engine.EVENT
            elif self._transport.take_config_interrupt() or queued:
                if self.hinter is not None:
                    yield from self.hinter.look()
                queued = yield from self._update_balloon_size()
            else:
                yield from self.idle()

    def _update_balloon_size(self) -> Steps[bool]:
        """Do one work item; return whether it queues itself again."""
        diff = yield from self.towards_target()
        # 5.8 and later: if (!diff) return
        if not diff and not self._traits.idle_writes:
            return False
        moved = yield from self._pass(diff)
        if self._traits.engine is Engine.TASK and moved:
            # viomb_inflate_intr: on in the same direction, if there is more of it.
            return moved * (yield from self.towards_target()) > 0
        return _AGAIN[self._traits.engine](diff, moved)

    def _pass(self, diff: int) -> Steps[int]:
        """Move one batch towards the target and write ``actual``; return how many."""
        moved = 0
        if diff > 0:
            moved = yield from self._balloon.fill(diff)
        elif diff < 0:
            moved = -(yield from self._balloon.leak(-diff))
        yield from self._relieve()
        if moved or not self._traits.fails_silently:
            yield from self._write_actual()
        return moved

    def leave(self, *, write_actual: bool) -> Steps[None]:
        """Empty the balloon (``remove_common``)."""
        while self._balloon.size:
            yield from self._balloon.leak(self._balloon.size)
        if write_actual:
            yield from self._write_actual()

    # --- what comes in between ---

    def idle(self) -> Steps[None]:
        """Wait for something to happen."""
        yield from self._relieve()
        if self.reporter is not None:
            yield from self.reporter.work()
        yield False

    def _relieve(self) -> Steps[None]:
        """Do what other threads of the guest ask for: memory, or other pages.

        ``virtballoon_oom_notify`` gives pages back and writes ``actual``; a page that
        is moved leaves no trace in it.
        """
        units, self.pressure = self.pressure, 0
        if units:
            yield from self._balloon.leak(units)
            yield from self._write_actual()
        moves, self.moves = self.moves, 0
        for _ in range(moves):
            yield from self._balloon.exchange()

    # --- what it says to the device ---

    def read_target(self) -> Steps[int]:
        """Read ``num_pages`` as this driver understands it."""
        data = yield from self._config.read("num_pages")
        return int.from_bytes(data, self._target_order.value)

    def towards_target(self) -> Steps[int]:
        """Read the target; return how far it is from the balloon's size."""
        target = yield from self.read_target()
        if self._traits.aligns_target:
            pieces = self._profile.page_size // PAGE_SIZE
            target = -(-target // pieces) * pieces
        diff = target - (yield from self._size())
        # 2.6.25-2.6.26: "return v - vb->num_pages" in u32
        return diff & 0xFFFFFFFF if self._traits.unsigned_diff else diff

    def _size(self) -> Steps[int]:
        """Return what the driver takes for the size of its balloon."""
        if not self._traits.asks_device:
            return self._balloon.size
        data = yield from self._config.read("actual")
        return int.from_bytes(data, ByteOrder.LITTLE.value)

    def _write_actual(self) -> Steps[None]:
        if self._traits.writes_actual:
            data = self._balloon.size.to_bytes(4, self._actual_order.value)
            yield from self._config.write("actual", data)

    def _stats_asked(self) -> bool:
        return self.stats is not None and self.stats.asked()

    def answer_stats(self) -> Steps[bool]:
        """Send statistics if they are asked for; return whether they were."""
        if self.stats is None or not self.stats.asked():
            return False
        self.stats.answer()
        yield True
        return True

    def woken(self) -> bool:
        """Return whether a config interrupt came since the last call."""
        return self._transport.take_config_interrupt()


_AGAIN: Final[dict[Engine, Callable[[int, int], bool]]] = {
    Engine.WORKQUEUE: lambda diff, moved: diff != moved,
    # Pages that were not to be had bring no interrupt.
    Engine.TASK: lambda _diff, _moved: False,
    # BalloonInterruptDpc wakes the thread whatever the interrupt was for.
    Engine.EVENT: lambda _diff, moved: moved != 0,
}
"""Whether a pass that moved so much of ``diff`` is followed by another."""
