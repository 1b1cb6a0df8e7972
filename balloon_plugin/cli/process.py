"""What the commands share that serve until they are ended: limits and signals."""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Callable

__all__ = ["allow_descriptors", "end_by_signals"]


def allow_descriptors() -> None:
    """Take all descriptors that we may have: a guest can need some 300 of them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def end_by_signals(stop: Callable[[], None]) -> None:
    """Let the first signal stop the service, and none disturb it as it clears up."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    ending = threading.Event()

    def end(*_: object) -> None:
        # Python puts its handlers away some time before the process is gone.
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        if not ending.is_set():
            ending.set()
            stop()

    for number in numbers:
        signal.signal(number, end)
