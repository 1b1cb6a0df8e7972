"""An event loop in one thread: descriptors, timers, and work that waits its turn.

Knows nothing of vhost-user. :mod:`selectors` instead of asyncio, whose loop costs twice
as much per wake-up and cannot receive file descriptors.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar

__all__ = ["Loop"]

_T = TypeVar("_T")
_Callback: TypeAlias = Callable[[], None]


class Loop:
    """Callbacks, called from one thread, one at a time."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, _Callback]] = []
        self._order = itertools.count()
        self._ready: deque[_Callback] = deque()
        self._thread: int | None = None
        self._lock = threading.RLock()
        self._calls: deque[_Callback] = deque()
        self._stopping = False
        self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self._waker, self._wake_up)

    # --- what is called, and when ---------------------------------------------------

    def watch(self, fd: int, callback: _Callback, *, writing: bool = False) -> None:
        """Call back whenever ``fd`` can be read, or written to.

        :raises OSError: if it is of a kind that cannot be waited for.
        """
        event = selectors.EVENT_WRITE if writing else selectors.EVENT_READ
        self._selector.register(fd, event, callback)

    def ignore(self, fd: int) -> None:
        """Watch ``fd`` no more; to be called before it is closed."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def soon(self, callback: _Callback) -> None:
        """Call back once, after everyone else had a turn."""
        self._ready.append(callback)

    def at(self, when: float, callback: _Callback) -> None:
        """Call back once at a time of :func:`time.monotonic`."""
        heapq.heappush(self._timers, (when, next(self._order), callback))

    # --- running --------------------------------------------------------------------

    def step(self, timeout: float | None = 0.0) -> bool:
        """Wait up to ``timeout`` seconds for work, do it, and say if there was any."""
        events = self._selector.select(self._patience(timeout))
        for key, _ in events:
            # One callback may have ended the watch of another's descriptor.
            if self._selector.get_map().get(key.fd) is key:
                key.data()
        due = self._due()
        turns = [self._ready.popleft() for _ in range(len(self._ready))]
        for callback in (*due, *turns):
            callback()
        return bool(events or due or turns)

    def run(self) -> None:
        """Step until :meth:`stop`."""
        with self._lock:
            self._thread = threading.get_ident()
        try:
            while not self._stopping:
                self.step(None)
        finally:
            with self._lock:
                self._thread = None
                self._stopping = False
                self._wake_up()

    def stop(self) -> None:
        """Make :meth:`run` return; for any thread, and for signal handlers."""
        self._stopping = True
        os.eventfd_write(self._waker, 1)

    @property
    def elsewhere(self) -> bool:
        """Whether :meth:`run` is under way in another thread."""
        return self._thread not in (None, threading.get_ident())

    def call(self, function: Callable[[], _T]) -> _T:
        """Run ``function`` in the thread of :meth:`run`; return or raise what it does.

        In that thread, or while there is none, the function is run at once.
        """
        with self._lock:
            # Here the lock keeps run() and other callers waiting.
            if self._thread in (None, threading.get_ident()):
                return function()
            future: Future[Any] = Future()
            self._calls.append(lambda: _fulfil(future, function))
            os.eventfd_write(self._waker, 1)
        result: _T = future.result()
        return result

    def close(self) -> None:
        """Let go of the loop's own descriptors."""
        self._selector.close()
        os.close(self._waker)

    def _patience(self, timeout: float | None) -> float | None:
        if self._ready:
            return 0.0
        if not self._timers:
            return timeout
        left = max(0.0, self._timers[0][0] - time.monotonic())
        return left if timeout is None else min(left, timeout)

    def _due(self) -> list[_Callback]:
        now = time.monotonic()
        due = []
        while self._timers and self._timers[0][0] <= now:
            due.append(heapq.heappop(self._timers)[2])
        return due

    def _wake_up(self) -> None:
        """Run what other threads asked for."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._waker)
        while self._calls:
            self._calls.popleft()()


def _fulfil(future: Future[Any], function: Callable[[], Any]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001 - it is raised in the other thread
        future.set_exception(error)
