"""How long a driver has stood still, and what follows from that.

A driver that sleeps through its target is woken. One that does not react at all is not
waited for: in the end its silence is an answer.
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["Patience", "Silence"]

LONGEST: Final = 64
"""Seconds at most between two wake-ups of a driver that is not waited for.

A config interrupt costs nothing; a driver that finds no memory may find some later.
"""


class Silence(enum.Enum):
    """What to do about a driver that stands still."""

    WAIT = "nothing yet"
    NUDGE = "wake it"
    OVER = "take its silence for an answer"


class Patience:
    """The stillness of one driver.

    :param seconds: without movement after which silence is an answer.
    """

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self.moved()

    def moved(self) -> None:
        """Begin to wait anew: something moved, or is expected now."""
        self._since: float | None = None
        self._next = 1

    def tested(self, now: float) -> Silence:
        """Return what to do about a driver that is being tested."""
        still = self._still(now)
        if still >= self._seconds:
            return Silence.OVER
        return Silence.NUDGE if still > 0 else Silence.WAIT

    def left_alone(self, now: float) -> Silence:
        """Return what to do about a driver that nothing more is concluded about.

        It is believed and short of the user's target, or was silent for too long.
        """
        if self._still(now) < self._next:
            return Silence.WAIT
        self._next += min(self._next, LONGEST)
        return Silence.NUDGE

    def _still(self, now: float) -> float:
        # A clock that goes back is another one, after a migration.
        if self._since is None or now < self._since:
            self.moved()
            self._since = now
        return now - self._since
