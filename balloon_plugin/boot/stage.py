"""Where the story plays: a daemon in a thread, a guest, and one inbox for both.

Whatever way the story is left, everything that was begun is ended: the guest's
processes, the daemon's thread, the socket and the private folder.
"""

from __future__ import annotations

import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from balloon_plugin.boot.guest import Broken, Happening, Machine, Seen
from balloon_plugin.boot.plan import Plan
from balloon_plugin.boot.process import GuestProcess
from balloon_plugin.boot.view import WANTED
from balloon_plugin.calls import Device
from balloon_plugin.events import Event
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.hosts.vhost_user import Daemon
from balloon_plugin.manager import make_device
from balloon_plugin.trace import recording

__all__ = ["Stage"]

_SOCKET: Final = "balloon.sock"

_T = TypeVar("_T")


class Stage:
    """A context in which one guest runs against one device.

    :raises HostError: on entering, if the guest cannot be started.
    :raises PluginError: on entering, if there is no such policy.

    :ivar guest: the guest's process.
    """

    guest: GuestProcess
    _daemon: Daemon
    _device: Device

    def __init__(self, machine: Machine, plan: Plan) -> None:
        self._machine = machine
        self._plan = plan
        self._inbox: queue.SimpleQueue[Happening] = queue.SimpleQueue()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(
                    prefix="balloon-plugin-", ignore_cleanup_errors=True
                )
            )
            # Through a descriptor: a socket's path has 107 bytes, TMPDIR's may be long.
            home = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, home)
            self._daemon = stack.enter_context(Daemon())
            self._serve(stack, Path(f"/proc/self/fd/{home}"))
            self._start(stack, Path(folder))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def next(self, timeout: float) -> Happening | None:
        """Return what happened next, or ``None`` if nothing does within ``timeout``."""
        try:
            return self._inbox.get(timeout=max(timeout, 0.0))
        except queue.Empty:
            return None

    def with_device(self, function: Callable[[Device], _T]) -> _T:
        """Run a function on the device in the thread where it lives."""
        return self._daemon.call(lambda: function(self._device))

    def _serve(self, stack: ExitStack, folder: Path) -> None:
        slot = self._daemon.add(
            folder / _SOCKET,
            lambda: self._make_device(stack),
            byte_order=self._machine.byte_order,
            page_size=self._machine.page_size,
        )
        self._device = slot.device
        thread = threading.Thread(
            target=self._run_daemon, name="balloon daemon", daemon=True
        )
        thread.start()
        stack.callback(thread.join)
        stack.callback(self._daemon.stop)

    def _make_device(self, stack: ExitStack) -> Device:
        plan, watcher = self._plan, _Watcher(self._post)
        device = make_device(plan.policy, observers=[watcher], options=plan.options)
        if plan.record is not None:
            title = self._machine.title
            stack.enter_context(recording(device, plan.record, guest=title))
        return device

    def _run_daemon(self) -> None:
        try:
            self._daemon.run()
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self._post(Broken(time.monotonic(), error))

    def _start(self, stack: ExitStack, folder: Path) -> None:
        command = self._machine.prepare(folder, _SOCKET, self._plan.memory)
        self.guest = GuestProcess(command, folder, self._post)
        stack.callback(self.guest.stop)
        self.guest.start()

    def _post(self, happening: Happening) -> None:
        self._inbox.put(happening)


class _Watcher:
    """An observer that posts events, each with its time."""

    def __init__(self, post: Callable[[Happening], None]) -> None:
        self._post = post

    @hookimpl
    def balloon_event(self, event: Event) -> None:
        """Post it, if anything can be learnt from it."""
        if isinstance(event, WANTED):
            self._post(Seen(time.monotonic(), event))
