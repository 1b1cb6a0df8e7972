"""Free page hinting: the driver lists its free pages, once, when it is asked to.

Meant for a migration, which need not carry them (VIRTIO 1.3 §5.5.6.5). Whoever migrates
listens to :class:`~balloon_plugin.events.PagesHinted`.

No hinted page is ever given back to the host. The device MAY modify one only as long as
the guest has not written to it since (D12), and the driver MAY release it to the guest
at any time, even before the device has seen the hint. Only a log of the guest's writes
could tell, and a balloon has none; devices that discard without it corrupt guests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder, Event, PagesHinted
from balloon_plugin.kick import CHAINS_AT_ONCE, Kick, read
from balloon_plugin.layouts import PAGE_SIZE, HintCommand
from balloon_plugin.pages import clip, covered
from balloon_plugin.status import Hints

__all__ = ["Hinting"]

_STOP: Final = HintCommand.VIRTIO_BALLOON_CMD_ID_STOP.value
_DONE: Final = HintCommand.VIRTIO_BALLOON_CMD_ID_DONE.value
_FIRST: Final = 2
"""The lowest id that is not reserved."""
_LAST: Final = (1 << 32) - 1
_ID_SIZE: Final = 4

PARTS_AT_ONCE: Final = 1024
"""Commands and ranges after which other guests have a turn, some milliseconds of work.

Linux hints at 4 MiB in each.
"""


class Hinting:
    """The hints of one guest.

    Command ids are counted up for as long as the device lives, so that none is ever
    used twice, whatever the driver has answered to it (D10).

    :param emit: is shown what was hinted.
    """

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._last = _FIRST - 1
        self.reset()

    @property
    def command(self) -> int:
        """What the driver reads in ``free_page_hint_cmd_id``."""
        return self._command

    def reset(self) -> None:
        """Forget the driver, and what it was asked for."""
        self._command = _STOP
        self._answer: int | None = None
        self._pages = 0

    def start(self) -> int:
        """Ask for all free pages, anew if it is under way; return the command's id.

        :raises HostError: if there are no more ids.
        """
        if self._last == _LAST:
            message = "all command ids of free page hinting are used: make a new device"
            raise HostError(message)
        self._last += 1
        self._command, self._answer, self._pages = self._last, None, 0
        return self._command

    def stop(self) -> bool:
        """Let the driver release what it hinted; return whether it had to be told.

        MUST report DONE when there is no longer need for the pages (§5.5.6.5.2).
        """
        under_way = self._command >= _FIRST
        if under_way:
            self._command = _DONE
        return under_way

    def serve(self, kick: Kick) -> bool:
        """Take commands and pages; return whether more may wait."""
        cost = 0
        while cost < PARTS_AT_ONCE:
            chains = kick.queue.pop(CHAINS_AT_ONCE)
            if not chains:
                return False
            # What is empty costs something too.
            cost += sum(
                1 + len(chain.readable) + len(chain.writable) for chain in chains
            )
            pages: list[tuple[int, int]] = []
            for chain in chains:
                if chain.fault is not None:
                    kick.fault(chain.fault)
                elif chain.readable:
                    data = read(chain, kick.host.memory, _ID_SIZE, kick.fault)
                    self._take_id(data, kick)
                # D11: MUST ignore pages of any command but the current one.
                if self._answer == self._command >= _FIRST:
                    pages += chain.writable
            self._tell(pages, kick)
            kick.answer(chains)
        return True

    def hints(self) -> Hints:
        """Return how far it is."""
        return Hints(self._command, self._answer, self._pages)

    # --- snapshots ---

    def save(self) -> dict[str, Any]:
        """Return all that is known as a value that JSON can carry."""
        return {
            "last": self._last,
            "command": self._command,
            "answer": self._answer,
            "pages": self._pages,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`save` returned."""
        self._last, self._command = state["last"], state["command"]
        self._answer, self._pages = state["answer"], state["pages"]

    # --- buffers ---

    def _take_id(self, data: bytes, kick: Kick) -> None:
        """Take a command id, in the byte order of the queue (native on legacy)."""
        if len(data) < _ID_SIZE:
            kick.fault(f"a command of free page hinting has {len(data)} bytes")
            return
        big = kick.queue.byte_order is ByteOrder.BIG
        self._answer = int.from_bytes(data, "big" if big else "little")

    def _tell(self, pages: list[tuple[int, int]], kick: Kick) -> None:
        runs, outside = clip(covered(pages, PAGE_SIZE), kick.host.facts.ram)
        if outside:
            kick.fault(f"{outside} hinted pages are not in RAM")
        if runs:
            self._pages += sum(count for _, count in runs)
            self._emit(PagesHinted(self._command, tuple(runs)))
