"""Page numbers of a driver that means harm.

It tells the truth until it must be taken for a good driver, and lies from then on. What
it once said of a page it says again, so that nothing shows when it gives pages back.
"""

from __future__ import annotations

from typing import Final

from balloon_plugin.guests.ram import Ram
from balloon_plugin.guests.traits import Lie

__all__ = ["LIED_ABOUT", "Liar"]

HONEST: Final = 256
"""Pages about which it tells the truth: a whole batch, more than any probe asks for."""

LIED_ABOUT: Final = 512
"""Pages in use that it names, from the low end of RAM; about others it tells the truth.

They bear marks. The heap with its rings lies above them.
"""


class Liar:
    """What such a driver says of its pages.

    :param lie: what kind.
    :param ram: the guest's RAM; its frames are pages of 4 KiB.
    """

    def __init__(self, lie: Lie, ram: Ram) -> None:
        self._plain = lie is Lie.PLAIN
        self._ram = ram
        self._said: dict[int, int] = {}
        self._lies = 0

    def numbers(self, frames: list[int]) -> list[int]:
        """Return what it says of these frames."""
        return [self._say(frame) for frame in frames]

    def _say(self, frame: int) -> int:
        if frame not in self._said:
            honest = len(self._said) < HONEST or self._lies >= LIED_ABOUT
            self._said[frame] = frame if honest else self._lie(frame)
        return self._said[frame]

    def _lie(self, frame: int) -> int:
        self._lies += 1
        in_use = self._ram.first_page + self._lies - 1
        if not self._plain:
            return in_use
        # Three kinds in turn: one number for many pages, beyond RAM, and in use.
        beyond = self._ram.first_page + self._ram.pages + frame
        return (self._ram.first_page, beyond, in_use)[self._lies % 3]
