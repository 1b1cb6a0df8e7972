"""Where one driver session ends and the next begins, on a protocol that does not say.

A front end stops its queues when the guest resets the device, when the module goes, and
when the virtual machine is merely paused. QEMU sends the same messages in all three
(``do_vhost_dev_stop``: SET_VRING_ENABLE 0, GET_VRING_BASE, from some devices SET_STATUS
0), User-Mode Linux only the first of them. A verdict must die with its driver and
survive a pause, so nothing is decided before the next sign of life. Queues that start
again where they stood belong to the driver that was there. Queues that start at 0 are
those of a new one, and only a running guest looks at the configuration space.

A front end that lost its connection brings its driver back in the same way, to this
daemon or to the next one. A session that was parked meanwhile is one that is paused.

A driver that paused before its first buffer, or after exactly 65,536 on each of its
queues (packed ones: after whole laps), is taken for a new one: it is judged anew, and
no page of it is lost by that.
"""

from __future__ import annotations

import enum

from balloon_plugin.hosts.vhost_user.effects import (
    DriverReady,
    Effect,
    GuestChanged,
    ResetDevice,
    Resume,
    SetFeatures,
)
from balloon_plugin.layouts import Feature

__all__ = ["Phase", "Session"]

_VERSION_1 = Feature.VIRTIO_F_VERSION_1.mask


class Phase(enum.Enum):
    """What the device knows of a driver."""

    FRESH = "nothing was told since the last reset"
    LIVE = "a driver session is under way"
    PAUSED = "all queues stopped, and whose the next start is remains to be seen"


class Session:
    """What the device was told of its driver, and what it must be told next.

    Each method returns the effects that are due, in order. Facts that the front end
    announces ahead of the queues (features, memory) are told when the first of them
    starts or the configuration space is used: a reset may have to go before them.

    :param parked: the session that may go on.
    """

    def __init__(self, parked: Resume | None = None) -> None:
        self.phase = Phase.PAUSED if parked else Phase.FRESH
        self.number = 0
        """How many sessions have ended, to tell one from the next."""
        self._acked: int | None = None
        self._told = parked.features if parked else None
        self._ready = parked.ready if parked else False
        self._guest_changed = False
        self._parked = parked

    @property
    def features(self) -> int:
        """The accepted bits as far as they are known."""
        bits = self._told if self._acked is None else self._acked
        return bits or 0

    @property
    def modern(self) -> bool:
        """Whether VERSION_1 was negotiated."""
        return bool(self.features & _VERSION_1)

    @property
    def parked(self) -> bool:
        """Whether a session is still parked, and nobody knows yet if it goes on."""
        return self._parked is not None

    @property
    def going(self) -> Resume | None:
        """What it takes to go on with this session, or ``None`` if there is none."""
        if self.phase is Phase.FRESH:
            return None
        return Resume(self._told or 0, self._ready)

    def park(self, parked: Resume) -> None:
        """Note that a session came along, which goes on with the next start."""
        self.phase, self._parked = Phase.PAUSED, parked
        self._told, self._ready = parked.features, parked.ready

    def accept(self, features: int) -> None:
        """Note the feature bits that the driver accepted."""
        self._acked = features

    def guest_changes(self) -> list[Effect]:
        """Note that memory or facts of the guest change."""
        self._guest_changed = True
        return self._news() if self.phase is Phase.LIVE else []

    def begin(self, *, goes_on: bool) -> list[Effect]:
        """Prepare the device for something that the driver did.

        :param goes_on: whether it is the work of the driver that was there before a
            pause; of no importance if there was none.
        """
        effects: list[Effect] = []
        if self._is_new(goes_on=goes_on):
            effects.append(ResetDevice())
            self._forget()
        self.phase = Phase.LIVE
        effects += self._news()
        if self._parked is not None:
            effects.append(self._parked)
            self._parked = None
        return effects

    def ready(self, *, goes_on: bool) -> list[Effect]:
        """Note that the driver set DRIVER_OK, or what is nearest to it."""
        effects = self.begin(goes_on=goes_on)
        if not self._ready:
            self._ready = True
            effects.append(DriverReady())
        return effects

    def pause(self) -> None:
        """Note that all queues stopped; features after this are of what comes next."""
        if self.phase is Phase.LIVE:
            self.phase = Phase.PAUSED
            self._acked = None

    def end(self) -> list[Effect]:
        """End the session for certain: a device reset, or the front end went."""
        effects: list[Effect] = [] if self.phase is Phase.FRESH else [ResetDevice()]
        self.phase, self._acked = Phase.FRESH, None
        self._forget()
        return effects

    def _forget(self) -> None:
        self._told, self._ready, self._parked = None, False, None
        self.number += 1

    def _is_new(self, *, goes_on: bool) -> bool:
        if self.phase is Phase.PAUSED and not goes_on:
            return True
        # The device takes features once in a session, so others are another's.
        return None not in (self._told, self._acked) and self._told != self._acked

    def _news(self) -> list[Effect]:
        effects: list[Effect] = []
        if self._guest_changed:
            self._guest_changed = False
            effects.append(GuestChanged())
        if self._acked is not None and self._acked != self._told:
            self._told = self._acked
            effects.append(SetFeatures(self._acked))
        return effects
