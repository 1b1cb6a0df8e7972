"""What is kept of a slot's driver session while its front end is away.

It is kept in memory, and if the user gave a file, there as well, for the next daemon.
Whoever serves the slot says when something may have changed; what is written then is
decided here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from balloon_plugin.calls import Device
from balloon_plugin.errors import HostError
from balloon_plugin.events import Event, TimePassed
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.hosts.state_file import StateError, StateFile
from balloon_plugin.hosts.vhost_user import parked
from balloon_plugin.hosts.vhost_user.host import SlotHost
from balloon_plugin.hosts.vhost_user.parked import COUNTED, Parked, Place
from balloon_plugin.hosts.vhost_user.rings import BEGINNINGS
from balloon_plugin.virtqueue import Ring

__all__ = ["Keeper", "boot"]

_Session = Callable[[dict[int, Place]], Parked | None]


@functools.cache
def boot() -> str:
    """Return what tells this boot of the machine from every other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Keeper:
    """Keeps the driver session of one slot.

    :param device: the slot's device, realized.
    :param path: of the file, or ``None`` to keep it in memory only.
    :raises StateError: if what is in the file cannot be used.
    :raises HostError: if the file cannot be.

    :ivar parked: the session whose front end is away, if there is one.
    """

    def __init__(self, device: Device, path: Path | None) -> None:
        self.parked: Parked | None = None
        self._device = device
        self._file = StateFile(path) if path is not None else None
        self._session: _Session | None = None
        self._changed = False
        self._brought: int | None = None
        """The target as it was right after a session had come along."""
        self.restored = False
        """Whether anything was kept by a daemon before this one."""
        if self._file is not None:
            try:
                self._take_up(self._file)
            except HostError as error:
                self._file.close()
                raise StateError(f"{path}: {error}") from error

    def _take_up(self, file: StateFile) -> None:
        if file.value is not None:
            target, self.parked = parked.unpack(file.value)
            self.restored = True
            self._device.set_target(target)
        self._device.plugins.register(self)

    @hookimpl
    def balloon_event(self, event: Event) -> None:
        """Note that something happened; time alone is nothing to write down."""
        self._changed |= not isinstance(event, TimePassed)

    # --- a front end comes and goes -------------------------------------------------

    def watch(self, session: _Session) -> None:
        """Keep the session of a front end that connected.

        :param session: returns it as it is now, with the buffers of each queue that
            were handled and are yet to be returned; ``None`` if there is none.
        """
        self._session = session

    def park(self) -> None:
        """Keep the session of a front end that is about to go."""
        session, self._session = self._session, None
        self._changed = True
        if session is not None:
            self.parked = session({})

    def abandon(self) -> None:
        """Keep no session of this front end: it cannot be taken up again."""
        self.parked = self._session = None
        self._changed = True

    def resume(self, host: SlotHost, rings: Mapping[int, Ring]) -> dict[int, int]:
        """Take up the session that is parked, in a device that knows its guest.

        :param host: with the memory and the queues of the front end that came back.
        :param rings: of those queues.
        :returns: by queue how many buffers are owed to the driver.
        :raises HostError: if it is another driver's session; the device is unchanged.
        """
        session, self.parked = self.parked, None
        brought, self._brought = self._brought, None
        if session is None or not session.is_of(boot(), host.mapped.files):
            raise HostError("its memory is not that of the session which was kept")
        stand = {index: host.stand(index, rings.get(index)) for index in COUNTED}
        if all(base in BEGINNINGS for base in stand.values()):
            raise HostError("its queues stand at their beginning")
        owed: dict[int, int] = {}
        for index, base in stand.items():
            count = session.owed(index, base, rings.get(index))
            if count is None:
                raise HostError(f"queue {index} is not where the kept session left it")
            owed[index] = count
            # Until it starts: of a packed one the front end does not know.
            host.vrings[index].base = base
        target = self._device.query().requested
        self._device.load(session.device)
        # What the user asked for meanwhile holds.
        if target not in (self._device.query().requested, brought):
            self._device.set_target(target)
        return owed

    # --- migration ------------------------------------------------------------------

    def export(self) -> bytes:
        """Return the session, for the daemon on the machine to which the guest goes."""
        session = self._session({}) if self._session else self.parked
        return parked.export(self._device.query().requested, session)

    def take_in(self, data: bytes) -> Parked | None:
        """Park the session that came with a guest; its target comes with it.

        :raises HostError: if it is damaged.
        """
        target, self.parked = parked.imported(data)
        self._device.set_target(target)
        self._brought = self._device.query().requested
        return self.parked

    # --- writing it down ------------------------------------------------------------

    def keep(self, owed: dict[int, Place] | None = None) -> None:
        """Write down what there is to keep, if anything happened.

        :param owed: where queues stand whose buffers are about to be returned.
        :raises HostError: if it cannot be written. Buffers that are owed may not be
            returned then, and the session is parked as it was last written.
        """
        if self._file is None or not (self._changed or owed):
            return
        session = self._session(owed or {}) if self._session else self.parked
        try:
            self._file.keep(parked.pack(self._device.query().requested, session))
        except HostError:
            if owed:
                self._session = None
                if self._file.value is not None:
                    _, self.parked = parked.unpack(self._file.value)
            raise
        self._changed = False

    def close(self) -> None:
        """Write down what is left and let go of the file, which stays."""
        if self._file is None:
            return
        self._device.plugins.unregister(self)
        self.keep()
        self._file.close()
