"""The engine of AppleVirtIOBalloon (macOS 26), which mixes up its units.

Second-hand: from the notes of aquarat/qemu-reims-vgpu, the one program known that makes
this driver useful; its authors read the disassembly and confirmed it with traces. The
driver counts 4 KiB pages but moves 16 KiB pages, and never looks at ``actual``:

* ``if (N > P) inflate(P, N)`` takes N - P pages of 16 KiB, and adds 4 * (N - P) to P;
* ``if (N < P) deflate(P, N)``, with the N that was read before, gives back P - N such
  pages, if so many are in buffers that the device has returned, or else none.

So a target is exact only on the way down, and only if it is P less a quarter of what is
wanted back. On the way up each step of d pages is followed by one of 3 * d down, unless
there are not that many.
"""

from __future__ import annotations

from typing import Final

from balloon_plugin.guests.balloon import Balloon
from balloon_plugin.guests.steps import Steps
from balloon_plugin.guests.work import Work

__all__ = ["run"]

_PIECES: Final = 4
"""Pages of 4 KiB in one of its own."""


def run(work: Work, balloon: Balloon) -> Steps[None]:
    """Work for ever: it is part of the system and cannot be unloaded."""
    while True:
        while not work.woken():
            yield from work.answer_stats()
            yield from work.idle()
        while (yield from _pass(work, balloon)):
            pass


def _pass(work: Work, balloon: Balloon) -> Steps[bool]:
    """Compare and move once; return whether a buffer came back, and so once more."""
    target = yield from work.read_target()
    returned = balloon.frames
    moved = 0
    if target > returned * _PIECES:
        moved += yield from balloon.fill(target - returned * _PIECES)
    surplus = balloon.frames * _PIECES - target
    if 0 < surplus <= returned:
        moved += yield from balloon.leak(surplus)
    return moved > 0
