"""The edge: a socket and one thread that serves all clients of it.

The thread of the devices is entered for the time of a command, or of a look at what a
guest's query shows; it never waits for a client.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from balloon_plugin import __version__
from balloon_plugin.calls import Device
from balloon_plugin.control.connection import Connection
from balloon_plugin.control.errors import CommandError
from balloon_plugin.control.events import News, event_line, may_be_news
from balloon_plugin.control.monitor import Monitor, Run
from balloon_plugin.control.site import Site
from balloon_plugin.errors import BalloonError
from balloon_plugin.events import Event
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.hosts.sockets import SocketFile
from balloon_plugin.manager import change_policy
from balloon_plugin.status import Status

__all__ = ["ControlServer"]

_log = logging.getLogger(__name__)

_MOST: Final = 64
"""Clients at a time; the next ones wait. Each takes a descriptor, and those of a
program that forgets to hang up must not be missing when a front end comes."""

_REST: Final = 1.0
"""Seconds to accept nobody if it fails: most likely there are no descriptors left."""


class ControlServer:
    """Serves QMP on a socket that only its user can open.

    A context manager: it serves inside, and has no client and no socket any more
    afterwards. It observes its devices meanwhile.

    :param path: where the socket is made.
    :param guests: the devices by the names of their guests.
    :param run: runs a function where the devices live, and returns or raises what it
        does; called from the server's thread.
    :param about: returns what a query of a guest shows besides its device, by its
        name; called where the devices live.
    :raises HostError: if something is alive there, or the socket cannot be made.
    """

    def __init__(
        self,
        path: Path,
        guests: Mapping[str, Device],
        run: Run,
        about: Callable[[str], dict[str, Any]] = lambda _guest: {},
    ) -> None:
        self._file = SocketFile(path)
        self._guests = dict(guests)
        self._site = Site(
            self._guests, __version__, self._change_policy, time.time, about
        )
        self._devices_run = run
        self._observers: dict[str, _Observer] = {}
        self._stirred: set[str] = set()
        self._news: dict[str, News] = {}
        self._clients: set[Connection] = set()
        self._accept_at = 0.0
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        """Begin to serve, in a thread of its own."""
        self._selector.register(self._waker, selectors.EVENT_READ, self._woken)
        self._devices_run(self._observe)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up on all clients and take the socket away."""
        self._closing = True
        os.eventfd_write(self._waker, 1)
        self._thread.join()
        with contextlib.suppress(BalloonError):  # as of a look at the news
            self._devices_run(self._ignore)
        self._file.close()
        self._selector.close()
        os.close(self._waker)
        for client in self._clients:
            client.socket.close()

    # --- in the devices' thread -----------------------------------------------------

    def _observe(self) -> None:
        for name, device in self._guests.items():
            self._news[name] = News(name, device.query())
            observer = self._observers[name] = _Observer(self, name)
            device.plugins.register(observer)

    def _ignore(self) -> None:
        for name, observer in self._observers.items():
            self._guests[name].plugins.unregister(observer)

    def _change_policy(self, name: str, policy: str) -> None:
        change_policy(self._guests[name], policy)

    def stir(self, name: str) -> None:
        """Take note that a guest has to be looked at; from its device's thread."""
        if name not in self._stirred:
            self._stirred.add(name)
            os.eventfd_write(self._waker, 1)

    # --- in a thread of its own -----------------------------------------------------

    def _serve(self) -> None:
        while not self._closing:
            now = time.monotonic()
            self._listen(now)
            for key, mask in self._selector.select(self._patience(now)):
                key.data(mask)
            self._tell_news(time.monotonic())

    def _patience(self, now: float) -> float | None:
        """Return how long there may be nothing to do but wait."""
        due = [self._news[name].due for name in tuple(self._stirred)]
        if self._accept_at > now:
            due.append(self._accept_at)
        return max(0.0, min(due) - now) if due else None

    def _woken(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._waker)

    def _run(self, function: Any) -> Any:
        """Run a command where the devices live, and hear of what it should not do."""
        try:
            return self._devices_run(function)
        except (BalloonError, CommandError):
            raise
        except Exception as error:  # ours or a plugin's; here to be heard
            _log.exception("a control command failed")
            message = f"it failed: {type(error).__name__}: {error}"
            raise CommandError(message) from error

    # --- clients ---

    def _listen(self, now: float) -> None:
        """Let clients in if there is room; after a failure not before a rest."""
        listener = self._file.socket
        lets_in = now >= self._accept_at and len(self._clients) < _MOST
        if lets_in and listener not in self._selector.get_map():
            self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def _accept(self, _mask: int) -> None:
        try:
            sock, _ = self._file.socket.accept()
        except OSError:
            self._selector.unregister(self._file.socket)
            self._accept_at = time.monotonic() + _REST
            return
        client = Connection(sock, Monitor(self._site, self._run))
        self._clients.add(client)
        self._selector.register(
            sock, client.mask, lambda mask: self._attend(client, mask)
        )
        if len(self._clients) >= _MOST:
            self._selector.unregister(self._file.socket)

    def _attend(self, client: Connection, mask: int) -> None:
        client.handle(mask)
        self._settle(client)

    def _settle(self, client: Connection) -> None:
        """Wait for what the client waits for, or say good-bye."""
        if client.done:
            self._selector.unregister(client.socket)
            client.socket.close()
            self._clients.remove(client)
            return
        key = self._selector.get_key(client.socket)
        if key.events != client.mask:
            self._selector.modify(client.socket, client.mask, key.data)

    # --- events ---

    def _tell_news(self, now: float) -> None:
        due = [name for name in tuple(self._stirred) if self._news[name].due <= now]
        if not due:
            return
        # First: what stirs during the look needs another.
        self._stirred.difference_update(due)
        shown: dict[str, Status | None] = {}
        # What is seen is so, also where a daemon cannot write down that it happened.
        with contextlib.suppress(BalloonError):
            self._devices_run(
                lambda: shown.update((name, _query(self._guests[name])) for name in due)
            )
        at = time.time()
        for name, status in shown.items():
            if status is not None:
                for event, data in self._news[name].look(status, now):
                    self._tell(event_line(event, data, at))

    def _tell(self, event: bytes) -> None:
        for client in tuple(self._clients):
            if client.tell(event):
                _log.warning("a control client reads nothing more and is cut off")
            self._settle(client)


class _Observer:
    """Stirs the server when there may be news of one guest."""

    def __init__(self, server: ControlServer, name: str) -> None:
        self._server = server
        self._name = name

    @hookimpl
    def balloon_event(self, event: Event) -> None:
        """Take note; the guest is looked at later, and not here."""
        if may_be_news(event):
            self._server.stir(self._name)


def _query(device: Device) -> Status | None:
    """Return what a query shows, ``None`` if nothing can be shown."""
    try:
        return device.query()
    except Exception:  # noqa: BLE001 - ours or a plugin's; other guests have news
        _log.exception("a device cannot be queried")
        return None
