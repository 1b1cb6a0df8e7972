"""The rings of one connection: what the front end said of each, and which ones run.

A ring runs when its size, its addresses and a kick are set and it is enabled; it stops
when it is disabled or its base is asked for ("Ring states"). User-Mode Linux stops by
SET_VRING_ENABLE alone, QEMU by both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from balloon_plugin.events import ByteOrder
from balloon_plugin.hosts.vhost_user.effects import (
    DescribeGuest,
    Effect,
    Notifier,
    Resume,
    SetBase,
    SetNotifier,
    StartQueue,
    StopQueue,
)
from balloon_plugin.hosts.vhost_user.messages import NonsenseError
from balloon_plugin.hosts.vhost_user.payloads import VringAddress
from balloon_plugin.hosts.vhost_user.session import Phase, Session
from balloon_plugin.layouts import VIRTQUEUE_MAX_SIZE, Feature, Queue
from balloon_plugin.virtqueue import PackedQueue, Ring, SplitQueue

__all__ = ["BEGINNINGS", "MAX_QUEUES", "Rings"]

MAX_QUEUES = len(Queue)
"""Queues that a balloon can have (VIRTIO 1.3 §5.5.2)."""

_ALIGNMENT = {"desc": 16, "avail": 2, "used": 4}
"""Of the parts of a split ring (VIRTIO 1.3 §2.7)."""

_MAX_BASE = 0xFFFF
"""Positions in a split ring are 16 bits wide, in a packed one there are two of them."""

BEGINNINGS = (None, SplitQueue.START, PackedQueue.START)
"""Positions that show no driver; User-Mode Linux starts packed rings at 0 as well."""

_PACKED = Feature.VIRTIO_F_RING_PACKED.mask
_PROTOCOL_FEATURES = Feature.VHOST_USER_F_PROTOCOL_FEATURES.mask


_NOWHERE = VringAddress(0, 0, 0, 0)
"""Stands for addresses that the front end has not told."""


@dataclass(slots=True)
class _Described:
    """What the front end said of one ring."""

    size: int = 0
    address: VringAddress = _NOWHERE
    base: int | None = None  # since it last stopped
    byte_order: ByteOrder | None = None
    enabled: bool | None = None
    kicked: bool = False
    running: bool = False

    @property
    def placed(self) -> bool:
        """Whether it is known where it lies."""
        return bool(self.size) and self.address is not _NOWHERE


class Rings:
    """All rings of one connection.

    Each method that takes an index raises ``NonsenseError`` if what the front end says
    makes no sense; nothing has changed then.

    :param session: is told when rings start and when all of them have stopped.
    :param native: byte order of legacy rings, unless the front end says otherwise.
    """

    def __init__(self, session: Session, native: ByteOrder) -> None:
        self._session = session
        self._native = native
        self._described_guest: ByteOrder | None = None
        self._rings: dict[int, _Described] = {}

    @property
    def running(self) -> bool:
        """Whether any ring runs."""
        return any(ring.running for ring in self._rings.values())

    @property
    def goes_on(self) -> bool:
        """Whether the positions show the driver that was there before a pause."""
        if self._packed and self._session.parked:
            # A front end that lost its connection does not know where these stand.
            return True
        return any(ring.base not in BEGINNINGS for ring in self._rings.values())

    def check(self, index: int) -> None:
        """Refuse a queue that no balloon has."""
        self._ring(index)

    # --- what the front end says ----------------------------------------------------

    def set_size(self, index: int, size: int) -> list[Effect]:
        """Take the number of entries."""
        ring = self._stopped(index)
        # Only a split ring needs a power of two (VIRTIO 1.3 §2.7, §2.8.10.1).
        odd = size & (size - 1) and not self._packed
        if not 0 < size <= VIRTQUEUE_MAX_SIZE or odd:
            raise NonsenseError(f"queue {index} has {size} entries, which cannot be")
        ring.size = size
        return []

    def set_address(self, address: VringAddress) -> list[Effect]:
        """Take the addresses; a ring that runs goes on at the new ones."""
        index = address.queue
        ring = self._ring(index)
        for part, alignment in _ALIGNMENT.items():
            if getattr(address, part) % alignment:
                raise NonsenseError(
                    f"queue {index} has its {part} ring at {getattr(address, part):#x},"
                    f" not aligned to {alignment} bytes"
                )
        ring.address = address
        if not ring.running:
            return self._update(index)
        return [StopQueue(index), self._start_effect(index)]

    def set_base(self, index: int, base: int) -> list[Effect]:
        """Take the position at which the ring is to start."""
        ring = self._stopped(index)
        if base > _MAX_BASE and not self._packed:
            raise NonsenseError(f"queue {index} cannot start at position {base}")
        ring.base = base
        return [SetBase(index, base)]

    def set_endian(self, index: int, big: int) -> list[Effect]:
        """Take the byte order of a legacy ring."""
        ring = self._stopped(index)
        if big not in (0, 1):
            raise NonsenseError(f"queue {index} has byte order {big}, not 0 or 1")
        ring.byte_order = ByteOrder.BIG if big else ByteOrder.LITTLE
        return []

    def enable(self, index: int, enabled: int) -> list[Effect]:
        """Enable or disable a ring."""
        ring = self._ring(index)
        if enabled not in (0, 1):
            raise NonsenseError(f"queue {index} cannot be enabled by {enabled}")
        ring.enabled = bool(enabled)
        return self._update(index)

    def kick(self, index: int) -> list[Effect]:
        """Take note that the front end set a kick, with which it lets a ring start."""
        self._ring(index).kicked = True
        return self._update(index)

    def stop(self, index: int) -> list[Effect]:
        """Stop a ring until it is kicked anew, and watch its kick no more."""
        self._ring(index).kicked = False
        return [*self._update(index), SetNotifier(Notifier.KICK, index, None)]

    def stop_all(self) -> list[Effect]:
        """Stop every ring."""
        return [effect for index in self._rings for effect in self.stop(index)]

    def reset(self) -> list[Effect]:
        """Stop every ring and forget what was said of it."""
        effects = self.stop_all()
        effects += [SetBase(index, 0) for index in self._rings]
        self._rings.clear()
        return effects

    def ready(self) -> list[Effect]:
        """Note that the driver set DRIVER_OK, which may be before any ring starts."""
        return self._with_rings(self._session.ready(goes_on=self.goes_on))

    # --- starting and stopping ------------------------------------------------------

    def _update(self, index: int) -> list[Effect]:
        """Start or stop a ring if it should be what it is not."""
        ring = self._rings[index]
        should = self._should_run(ring)
        if should == ring.running:
            return []
        return self._start(index) if should else self._stop(index)

    def _should_run(self, ring: _Described) -> bool:
        enabled = ring.enabled
        if enabled is None:
            # "If VHOST_USER_F_PROTOCOL_FEATURES has not been negotiated, the ring
            # starts directly in the enabled state."
            enabled = not self._session.features & _PROTOCOL_FEATURES
        return enabled and ring.kicked and ring.placed

    def _start(self, index: int) -> list[Effect]:
        ring = self._rings[index]
        # A ring without a new position was only switched off and on.
        goes_on = ring.base is None or self.goes_on
        effects = self._describe(ring)
        effects += self._with_rings(self._session.begin(goes_on=goes_on))
        ring.base, ring.running = None, True
        return [*effects, self._start_effect(index)]

    def _with_rings(self, effects: list[Effect]) -> list[Effect]:
        """Add to a session that is taken up by where its rings are, what is known."""
        rings = {
            index: self._start_effect(index).ring
            for index, ring in self._rings.items()
            if ring.placed
        }
        return [
            replace(effect, rings=rings) if isinstance(effect, Resume) else effect
            for effect in effects
        ]

    def _stop(self, index: int) -> list[Effect]:
        self._rings[index].running = False
        if not self.running:
            self._session.pause()
            # What was said of rings that did not start is no sign of who starts next.
            for ring in self._rings.values():
                ring.base = None
        return [StopQueue(index)]

    def _describe(self, ring: _Described) -> list[Effect]:
        """Tell what a legacy ring gives away of its guest, between two sessions."""
        big = ring.byte_order is ByteOrder.BIG and not self._session.modern
        order = ByteOrder.BIG if big else None
        if order is self._described_guest or self._session.phase is Phase.LIVE:
            return []
        self._described_guest = order
        return [DescribeGuest(order), *self._session.guest_changes()]

    def _start_effect(self, index: int) -> StartQueue:
        ring = self._rings[index]
        order = ring.byte_order or self._native
        return StartQueue(
            index,
            Ring(
                size=ring.size,
                desc=ring.address.desc,
                avail=ring.address.avail,
                used=ring.address.used,
                features=self._session.features,
                native=order,
            ),
            ring.address.log,
        )

    @property
    def _packed(self) -> bool:
        return bool(self._session.features & _PACKED)

    def _ring(self, index: int) -> _Described:
        if index >= MAX_QUEUES:
            raise NonsenseError(
                f"the front end has a queue {index}, but a balloon has at most "
                f"{MAX_QUEUES} queues: give the device no more (QEMU: num_vqs)"
            )
        return self._rings.setdefault(index, _Described())

    def _stopped(self, index: int) -> _Described:
        ring = self._ring(index)
        if ring.running:
            raise NonsenseError(f"queue {index} is set up anew while it runs")
        return ring
