"""The daemon: several sockets in one process, one device behind each.

Knows the life of a slot; what is said on a connection is the
business of :mod:`~balloon_plugin.hosts.vhost_user.connection`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from balloon_plugin.calls import Device
from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder
from balloon_plugin.hosts.vhost_user.connection import Connection
from balloon_plugin.hosts.vhost_user.door import Door
from balloon_plugin.hosts.vhost_user.host import SlotHost
from balloon_plugin.hosts.vhost_user.keeper import Keeper
from balloon_plugin.hosts.vhost_user.loop import Loop
from balloon_plugin.hosts.vhost_user.server import Server

__all__ = ["Daemon", "Slot"]

READ_WITHIN: Final = 0.2
"""Seconds that a caller waits for front ends to read what they were told.

They do so within a millisecond; one that does not at all makes its own user wait.
"""

_PAUSE: Final = 0.001
"""Seconds between two looks whether they did."""

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Slot:
    """One socket and the device behind it, for as long as the daemon serves it.

    The device is made and realized when the slot is added, so that observers can be
    registered and features chosen before a front end connects. When a front end goes,
    the driver session is parked: it goes on if the same driver comes back. The device
    and the user's target stay for whoever comes.

    :ivar path: the socket.
    :ivar device: the device. Call it in the daemon's thread: inside
        :meth:`Daemon.call`, or from an observer.
    """

    def __init__(
        self,
        path: Path,
        device: Device,
        host: SlotHost,
        loop: Loop,
        state: Path | None = None,
    ) -> None:
        self.path = path
        self.device = device
        self._host = host
        self._loop = loop
        device.realize(host)
        with contextlib.ExitStack() as undo:
            undo.callback(device.unrealize)
            self._keeper = Keeper(device, state)
            undo.callback(self._keeper.close)
            self._door = Door(path, loop, self._let_in, "the daemon ends")
            undo.pop_all()

    @property
    def connected(self) -> bool:
        """Whether a front end is connected."""
        return self._door.visitor is not None

    @property
    def restored(self) -> bool:
        """Whether a daemon before this one left a state behind."""
        return self._keeper.restored

    @property
    def announced(self) -> int:
        """How often its front end was told of a change."""
        return 0 if self._door.visitor is None else self._door.visitor.announced

    @property
    def unread(self) -> bool:
        """Whether its front end has yet to read that."""
        return self._door.visitor is not None and self._door.visitor.unread

    def tick(self) -> None:
        """Let time pass for the device."""
        self._door.tick()
        if self._door.visitor is not None:
            self._door.visitor.tick()
            return
        try:
            self.device.tick()
            self.keep()
        except HostError as error:
            _log.warning("%s: %s", self.path, error)
        except Exception:  # noqa: BLE001 - whatever it is, other guests live on
            _log.exception("%s: the device failed", self.path)

    def keep(self) -> None:
        """Write down what happened outside of a front end's doing.

        :raises HostError: if it cannot be written.
        """
        self._keeper.keep()

    def close(self) -> None:
        """End the connection, unrealize the device and remove the socket."""
        self._door.close()
        try:
            self._keeper.close()
        except HostError as error:
            _log.warning("%s: %s", self.path, error)
        self.device.unrealize()

    def _let_in(self, sock: socket.socket) -> Connection:
        return Connection(
            sock, self.device, self._host, self._loop, self._keeper, self._door.left
        )


class Daemon(Server[Slot]):
    """Serves vhost-user front ends from one thread.

    Also a context manager: leaving it closes connections, unrealizes the devices and
    removes the sockets.
    """

    def add(
        self,
        path: str | os.PathLike[str],
        make_device: Callable[[], Device],
        *,
        byte_order: ByteOrder | None = None,
        page_size: int | None = None,
        state: Path | None = None,
    ) -> Slot:
        """Listen on a new socket for one front end at a time.

        :param path: of the socket, made with mode 0600. One that nobody listens on any
            more is replaced.
        :param make_device: makes the device, which lives as long as the slot.
        :param byte_order: of the guest's CPU, if known.
        :param page_size: of the guest's kernel, if known.
        :param state: a file that keeps the driver session and the user's target over
            the death of the daemon; made if it is not there.
        :raises StateError: if what is in the file cannot be used.
        :raises HostError: if the socket exists and is alive, or it or the file cannot
            be made, or is in use.
        """
        host = SlotHost(os.fspath(path), byte_order, page_size)
        slot = Slot(Path(path), make_device(), host, self._loop, state)
        self._slots.append(slot)
        return slot

    def remove(self, slot: Slot) -> None:
        """Serve a slot no more; in the daemon's thread."""
        self._slots.remove(slot)
        slot.close()

    def call(self, function: Callable[[], _T]) -> _T:
        """Run ``function`` in the daemon's thread; return or raise what it does.

        If the daemon does not run, or from its own thread, it is run at once. What it
        changed is in the state files when this returns, and front ends have read what
        they were told of it, unless they take long: who changes a target and stops the
        machine right after that does not meet a QEMU with the news still before it
        (see :meth:`~balloon_plugin.hosts.vhost_user.host.SlotHost.notify_config`).
        """
        result, told = self._loop.call(lambda: self._kept(function))
        end = time.monotonic() + READ_WITHIN
        while told and self._loop.elsewhere and time.monotonic() < end:
            time.sleep(_PAUSE)
            told = self._loop.call(functools.partial(_unread, told))
        return result

    def _kept(self, function: Callable[[], _T]) -> tuple[_T, list[Slot]]:
        """Run a function; return what it does and who has yet to read of that."""
        before = {slot: slot.announced for slot in self._slots}
        try:
            result = function()
        finally:
            with contextlib.ExitStack() as stack:
                for slot in self._slots:
                    stack.callback(slot.keep)
        told = (slot for slot in self._slots if slot.announced > before.get(slot, 0))
        return result, _unread(told)


def _unread(slots: Iterable[Slot]) -> list[Slot]:
    return [slot for slot in slots if slot.unread]
