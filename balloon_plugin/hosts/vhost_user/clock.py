"""The time of a guest, which stands still while its queues do."""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """Seconds that a driver had to do something.

    A machine that is paused is no driver that is silent, and what it said of its memory
    gets no older.
    """

    def __init__(self) -> None:
        self._stood = 0.0
        self._since: float | None = None

    def now(self) -> float:
        """Return a monotonic time in seconds."""
        now = time.monotonic() if self._since is None else self._since
        return now - self._stood

    def stop(self) -> None:
        """Stand still."""
        if self._since is None:
            self._since = time.monotonic()

    def go_on(self) -> None:
        """Go on from where it stood, if it did."""
        if self._since is not None:
            self._stood += time.monotonic() - self._since
            self._since = None
