"""A host without a machine: real memory, a virtual clock, and a guest in one thread.

It stands between a device and a guest's driver. To the device it is a
:class:`~balloon_plugin.hookspecs.Host`; to the driver it is the bus, and the machine
with its RAM. It knows neither of them, and decides nothing: the caller runs the guest,
asks for targets and lets time pass, so that every run can be repeated exactly.

RAM really exists, and what the device discards is really gone.
"""

from __future__ import annotations

import contextlib
import json
import mmap
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self, TypeAlias

from balloon_plugin.calls import Device
from balloon_plugin.errors import PluginError
from balloon_plugin.events import GuestFacts, Run
from balloon_plugin.features import queues
from balloon_plugin.hosts.discard import Backing, give_back
from balloon_plugin.hosts.setup import Setup, map_ram
from balloon_plugin.layouts import PAGE_SIZE, Feature
from balloon_plugin.memory import GuestMemory, Region
from balloon_plugin.virtqueue import Queue, Ring, open_queue

__all__ = ["Setup", "SimulatedHost"]

_VERSION_1: Final = Feature.VIRTIO_F_VERSION_1.mask

_LEGACY_FEATURES: Final = (1 << 32) - 1
"""All that fits into the one register of a legacy bus (§4.1.4.8)."""

_Place: TypeAlias = tuple[int, int, int, int]
"""A queue's size, and where its three parts lie."""


class SimulatedHost:
    """One machine with one balloon device, which it realizes when it is made.

    Close it, or use it as a context manager, to give its memory back.

    :param device: the device, not realized yet.
    :param setup: what machine.
    :raises HostError: if that machine cannot be.

    :ivar config_interrupts: how many config interrupts the device sent.
    :ivar queue_interrupts: how many used-buffer notifications.
    :ivar discarded_pages: how many 4 KiB pages it gave back.
    :ivar lost: whether it set DEVICE_NEEDS_RESET since the last reset.
    """

    def __init__(
        self,
        device: Device,
        setup: Setup = Setup(),  # noqa: B008 - a frozen value
    ) -> None:
        self.setup = setup
        self.config_interrupts = 0
        self.queue_interrupts = 0
        self.discarded_pages = 0
        self._device = device
        self._closed = False
        self._map = map_ram(setup)
        self._backing = Backing(setup.ram_start, setup.ram_size, self._map)
        self._memory = self._whole_ram()
        self._now = 0.0
        self._next_tick = 1.0
        self._queues: dict[int, Queue] = {}
        self._places: dict[int, _Place] = {}
        self._forget_driver()
        device.realize(self)

    def _whole_ram(self) -> GuestMemory:
        return GuestMemory([Region(self.setup.ram_start, memoryview(self._map))])

    def _forget_driver(self) -> None:
        self.lost = False
        self._accepted = 0
        self._ready = False
        self._kicked: list[int] = []
        self._config_pending = False
        self._queue_pending: set[int] = set()
        for queue in self._queues.values():
            queue.release()
        self._queues.clear()
        self._places.clear()

    def migrate(self, device: Device) -> None:
        """Go on with another device, which takes over what this one saves.

        As a migration does: the session goes through JSON, memory is mapped anew with
        the same content, queues go on from their indexes, and the driver notices
        nothing.

        :param device: not realized yet.
        """
        state = json.dumps(self._device.save())
        bases = {index: queue.base for index, queue in self._queues.items()}
        for queue in self._queues.values():
            queue.release()
        self._queues.clear()
        self._device.unrealize()
        self._memory.release()
        self._memory, self._device = self._whole_ram(), device
        for index, base in bases.items():
            self._queues[index] = self._open_queue(index, base)
        device.realize(self)
        device.load(json.loads(state))
        # A buffer that the other one kept waits again, and nobody kicks for it.
        self._kicked += bases
        self._serve()

    def advance(self, seconds: float) -> None:
        """Let time pass, and tell the device about each full second of it."""
        end = self._now + seconds
        while self._next_tick <= end:
            self._now = self._next_tick
            self._next_tick += 1.0
            self._device.tick()
        self._now = end

    def close(self) -> None:
        """Let go of the device and give all memory back; once is enough."""
        if self._closed:
            return
        self._closed = True
        self._device.unrealize()
        self._forget_driver()
        self._memory.release()
        self._map.madvise(mmap.MADV_DONTNEED)
        # A guest may still look at its RAM; then the mapping goes when the guest does.
        with contextlib.suppress(BufferError):
            self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- for the device: hookspecs.Host ---

    @property
    def memory(self) -> GuestMemory:
        """The guest's memory."""
        return self._memory

    @property
    def facts(self) -> GuestFacts:
        """What the device is told of the guest."""
        setup = self.setup
        return GuestFacts(
            ram=self._memory.ranges,
            byte_order=setup.byte_order if setup.tell_byte_order else None,
            page_size=setup.page_size,
            host_page_size=setup.host_page_size,
        )

    def queue(self, index: int) -> Queue | None:
        """Return a queue that the driver has started."""
        return self._queues.get(index)

    def discard(self, runs: Sequence[Run]) -> int:
        """Give pages back; they read as zero from now on.

        :raises PluginError: if the runs are not what the device promises they are.
        """
        self._check_promise(runs)
        pages = give_back([self._backing], runs)
        self.discarded_pages += pages
        return pages

    def _check_promise(self, runs: Sequence[Run]) -> None:
        pieces = self.setup.host_page_size // PAGE_SIZE
        end = self.setup.ram_start // PAGE_SIZE
        for first, count in runs:
            if first < end or count < 1 or first % pieces or count % pieces:
                break
            end = first + count
        else:
            if end * PAGE_SIZE <= self.setup.ram_start + self.setup.ram_size:
                return
        raise PluginError(
            f"the device discards {list(runs)!r}: runs must be inside RAM, sorted, "
            f"disjoint, and made of whole host pages of {self.setup.host_page_size}"
        )

    def notify_queue(self, index: int) -> None:
        """Interrupt the driver: buffers of this queue were used."""
        self.queue_interrupts += 1
        self._queue_pending.add(index)

    def notify_config(self) -> None:
        """Interrupt the driver: the configuration changed."""
        self.config_interrupts += 1
        self._config_pending = True

    def needs_reset(self) -> None:
        """Set DEVICE_NEEDS_RESET, which comes with a config interrupt (§2.1.2)."""
        self.lost = True
        self.notify_config()

    def now(self) -> float:
        """Return the time, which is the same for the device and its driver."""
        return self._now

    # --- for the driver: its machine and its bus ---

    @property
    def ram_start(self) -> int:
        """Guest-physical address of the first byte of RAM."""
        return self.setup.ram_start

    @property
    def ram(self) -> memoryview:
        """A view of all RAM, for the guest to read and write."""
        return memoryview(self._map)

    def reset(self) -> None:
        """Take status 0."""
        self._forget_driver()
        self._device.reset()

    def offered_features(self) -> int:
        """Return what the device and this bus offer."""
        features = self._device.get_features() | self.setup.ring_features | _VERSION_1
        return features & _LEGACY_FEATURES if self.setup.legacy else features

    def accept_features(self, features: int) -> None:
        """Take the features that the driver wants."""
        self._accepted = features
        self._device.set_features(features)

    def queue_size(self, index: int) -> int:
        """Return how many entries a queue has; 0 for one that is not there."""
        there = index < len(queues(self._device.get_features()))
        return self.setup.queue_size if there else 0

    def start_queue(
        self, index: int, size: int, desc: int, avail: int, used: int
    ) -> None:
        """Start a queue where the driver has laid it out."""
        self._places[index] = (size, desc, avail, used)
        self._queues[index] = self._open_queue(index)

    def _open_queue(self, index: int, base: int | None = None) -> Queue:
        place, native = self._places[index], self.setup.byte_order
        return open_queue(self._memory, Ring(*place, self._accepted, native), base)

    def device_ready(self) -> None:
        """Take DRIVER_OK."""
        self._ready = True
        self._device.driver_ready()
        self._serve()

    def kick(self, index: int) -> None:
        """Take a kick, and have the device serve it."""
        self._kicked.append(index)
        self._serve()

    def _serve(self) -> None:
        """Serve the queues that were kicked, one after the other, each in turn."""
        held = self.setup.holds_early_kicks or self._accepted & _VERSION_1
        if held and not self._ready:
            return
        while self._kicked:
            index = self._kicked.pop(0)
            if self._device.queue_notify(index):
                self._kicked.append(index)

    def config_read(self, offset: int, size: int) -> bytes:
        """Read configuration space."""
        return self._device.get_config(offset, size)

    def config_write(self, offset: int, data: bytes) -> None:
        """Write configuration space."""
        self._device.set_config(offset, data)

    def take_config_interrupt(self) -> bool:
        """Return whether a config interrupt came since the last call."""
        pending, self._config_pending = self._config_pending, False
        return pending

    def take_queue_interrupt(self, index: int) -> bool:
        """Return whether an interrupt for this queue came since the last call."""
        pending = index in self._queue_pending
        self._queue_pending.discard(index)
        return pending
