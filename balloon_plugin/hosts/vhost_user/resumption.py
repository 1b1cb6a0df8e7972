"""The driver session on one connection: kept for the next, and gone on with.

What was handled is written down before the driver has its buffers back, so that each
counts once, whenever the daemon dies.
"""

from __future__ import annotations

import logging
from typing import Final

from balloon_plugin.calls import Device
from balloon_plugin.errors import HostError
from balloon_plugin.hosts.vhost_user import effects
from balloon_plugin.hosts.vhost_user.host import SlotHost
from balloon_plugin.hosts.vhost_user.keeper import Keeper, boot
from balloon_plugin.hosts.vhost_user.parked import COUNTED, Parked, Place
from balloon_plugin.hosts.vhost_user.protocol import Protocol
from balloon_plugin.layouts import VIRTIO_BALLOON_CONFIG

__all__ = ["Resumption"]

_log = logging.getLogger(__name__)

_ACTUAL: Final = VIRTIO_BALLOON_CONFIG.offsets["actual"]
_REST: Final = VIRTIO_BALLOON_CONFIG.size - _ACTUAL
"""The configuration space without ``num_pages``."""


class Resumption:
    """Hands the driver session of a connection to the keeper, and takes one up again.

    :param device: the slot's device.
    :param host: holds what the front end gives.
    :param protocol: knows whose session it is.
    :param keeper: keeps the session while no front end is connected.
    """

    def __init__(
        self,
        device: Device,
        host: SlotHost,
        protocol: Protocol,
        keeper: Keeper,
    ) -> None:
        self._device = device
        self._host = host
        self._protocol = protocol
        self._keeper = keeper
        self._owed: dict[int, int] = {}  # buffers handled before, yet to be returned
        host.on_push = self._about_to_push
        keeper.watch(self._session)

    def resume(self, effect: effects.Resume) -> None:
        """Go on with the session that is parked, or begin one if it is another's."""
        try:
            self._owed = self._keeper.resume(self._host, effect.rings)
        except HostError as error:
            _log.warning("%s: the driver is judged anew: %s", self._host.name, error)
            self._device.reset()
            self._device.set_features(effect.features)
            if effect.ready:
                self._device.driver_ready()
            return
        _log.info("%s: the driver goes on where it was", self._host.name)
        self._protocol.config_seen(_ACTUAL, self._device.get_config(_ACTUAL, _REST))
        # What was announced last may have been lost on the way.
        self._host.notify_config()

    def return_owed(self, index: int) -> None:
        """Return buffers that were handled before the last connection ended."""
        owed, queue = self._owed.pop(index, None), self._host.vrings[index].queue
        if owed is not None and queue is not None:
            queue.push(queue.pop(owed))
            # Also without any: the last notification may have been lost on the way.
            self._host.notify_queue(index)

    def _session(self, owed: dict[int, Place]) -> Parked | None:
        """Return what it takes to go on with the session on another connection."""
        if self._protocol.parked:
            return self._keeper.parked
        going = self._protocol.going
        if going is None:
            return None
        stand = {
            index: (self._host.vrings[index].base, self._owed.get(index, 0))
            for index in COUNTED
        }
        return Parked(
            boot=boot(),
            files=self._host.mapped.files,
            features=going.features,
            ready=going.ready,
            queues=stand | owed,
            device=self._device.save(),
        )

    def _about_to_push(self, index: int, count: int) -> None:
        """Write down what was handled, before the driver has its buffers back."""
        self._keeper.keep({index: (self._host.vrings[index].base, count)})
