"""The pages of one balloon: reading them from buffers, recording and reclaiming them.

Knows the host's memory and the gate; knows no configuration space and no driver
session. This is the hot path: nothing here is done per page in Python where a whole
batch can be done at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from balloon_plugin import core
from balloon_plugin.events import (
    GuestFacts,
    PagesDeflated,
    PagesInflated,
    PagesReclaimed,
    Run,
    Translation,
)
from balloon_plugin.gatekeeper import Gatekeeper
from balloon_plugin.hookspecs import Host, VirtQueue
from balloon_plugin.kick import Fault, read
from balloon_plugin.layouts import PAGE_SIZE
from balloon_plugin.ledger import Ledger
from balloon_plugin.memory import GuestMemory
from balloon_plugin.pages import clip, merge, total
from balloon_plugin.virtqueue import Chain

__all__ = ["Batch", "Inventory", "Pfns", "take"]

PAGES_AT_ONCE: Final = core.MAX_BUFFER_BYTES // 4 + 256
"""Page numbers after which a batch ends and other guests have a turn.

The longest buffer and one of Linux beside it: 65 MiB worth of pages, less than a tenth
of a second of work at the worst, which is a hole in a file for each of them.
"""

Pfns: TypeAlias = tuple[int, ...]
"""The 32-bit entries of one buffer, as the driver wrote them."""

_AS_IT_IS: Final = Translation()


@dataclass(frozen=True, slots=True)
class Batch:
    """What one kick brought.

    :ivar chains: to be returned to the driver, all of them.
    :ivar buffers: the page numbers of each chain, as the driver wrote them.
    :ivar more: whether the budget ended it, and chains may wait.
    """

    chains: list[Chain]
    buffers: list[Pfns]
    more: bool


def take(queue: VirtQueue, memory: GuestMemory, fault: Fault) -> Batch:
    """Pop chains and read their page numbers, until none is left or it is much."""
    chains: list[Chain] = []
    buffers: list[Pfns] = []
    cost = 0
    while cost < PAGES_AT_ONCE:
        popped = queue.pop(1)
        if not popped:
            return Batch(chains, buffers, more=False)
        chains += popped
        parts = [read(chain, memory, core.MAX_BUFFER_BYTES, fault) for chain in popped]
        buffers += [core.decode(data, queue.byte_order) for data in parts]
        # What is empty costs a turn too, or a ring of it were served for ever.
        cost += sum(len(data) // 4 for data in parts)
        cost += sum(1 + len(chain.readable) + len(chain.writable) for chain in popped)
    return Batch(chains, buffers, more=True)


class Inventory:
    """Which pages are in the balloon, and what becomes of them.

    :param gatekeeper: is shown every buffer, and says what may be reclaimed.
    """

    def __init__(self, gatekeeper: Gatekeeper) -> None:
        self._gatekeeper = gatekeeper
        self._facts = GuestFacts(ram=())
        self._translation = _AS_IT_IS
        self._ledger = Ledger((), PAGE_SIZE)
        self._parked = False
        self._swept = 0

    @property
    def pages(self) -> int:
        """Pages in the balloon by the numbers that the driver sent."""
        return self._ledger.pages

    @property
    def reclaimed(self) -> int:
        """Pages of them that were really given back."""
        return self._ledger.reclaimed

    def describe(self, facts: GuestFacts) -> None:
        """Learn the guest's RAM; what is recorded of pages that are still RAM stays.

        :raises HostError: if the host's page cannot be one.
        """
        ledger = Ledger(facts.ram, facts.host_page_size)
        ledger.take_over(self._ledger)
        self._facts, self._ledger = facts, ledger

    def clear(self) -> None:
        """Forget all pages: the driver session ended."""
        self._translation = _AS_IT_IS
        self._parked = False
        self._ledger.clear()

    def inflate(
        self, buffers: Sequence[Pfns], fault: Fault, host: Host, *, told: bool
    ) -> None:
        """Record the pages of a batch; reclaim what the policy allows (rules 1, 2, 11).

        A buffer is reclaimed if the gate was open after the policy saw it, and still is
        after the last of the batch: a buffer that shows a bug condemns those before it.

        :param told: whether the driver tells before it uses a page again.
        """
        seen, allowed = [], []
        for pfns in buffers:
            seen.append(self._observe(PagesInflated(pfns)))
            if self._gatekeeper.may_reclaim:
                allowed.append(seen[-1])
        runs = self._inside(seen, fault)
        self._ledger.inflate(runs)
        if not self._gatekeeper.may_reclaim:
            allowed = []
        if len(allowed) < len(buffers):
            self._parked, self._swept = True, 0
            runs, _ = self._runs(allowed)
        self._reclaim(self._ledger.ripe(runs, accumulate=told), host)

    def sweep(self, host: Host) -> None:
        """Give back some of the pages that came while it was not allowed (rule 1).

        Only for a driver that tells before it uses a page again: D4, MAY modify a page
        from its inflation until its deflation is acknowledged. All that it sent is
        believed, because a policy that opens the gate believes the driver.
        """
        if not self._parked or not self._gatekeeper.may_reclaim:
            return
        self._follow_translation()
        runs = self._ledger.kept(self._swept, PAGES_AT_ONCE)
        if not runs:
            self._parked = False
            return
        self._swept = sum(runs[-1])
        self._reclaim(self._ledger.ripe(runs, accumulate=True), host)

    def deflate(self, buffers: Sequence[Pfns], fault: Fault) -> None:
        """Record that the driver takes pages back."""
        seen = [self._observe(PagesDeflated(pfns)) for pfns in buffers]
        self._ledger.deflate(self._inside(seen, fault))

    def save(self) -> dict[str, Any]:
        """Return the record as a value that JSON can carry."""
        self._follow_translation()
        return self._ledger.save()

    def load(self, state: dict[str, Any], translation: Translation) -> None:
        """Take over a saved record.

        :param translation: by which the driver was read for it.
        :raises ValueError: if it does not fit this guest's RAM.
        """
        ledger = Ledger(self._facts.ram, self._facts.host_page_size)
        ledger.load(state)
        self._ledger, self._translation = ledger, translation
        self._parked, self._swept = ledger.reclaimed < ledger.pages, 0

    def _observe(self, event: PagesInflated | PagesDeflated) -> Pfns:
        """Let the policy see a buffer; return the entries of it that count."""
        self._gatekeeper.observe(event)
        self._follow_translation()
        entries = self._gatekeeper.gate.entries
        return event.pfns if entries is None else event.pfns[:entries]

    def _follow_translation(self) -> None:
        """Read the driver as the gate says; numbers recorded otherwise were wrong."""
        if self._gatekeeper.gate.translation != self._translation:
            self._translation = self._gatekeeper.gate.translation
            self._ledger.clear()

    def _inside(self, buffers: Sequence[Pfns], fault: Fault) -> list[Run]:
        """Merge the pages of a batch; those outside RAM are the driver's fault."""
        runs, outside = self._runs(buffers)
        if outside:
            fault(f"{outside} page numbers are not in RAM")
        return runs

    def _runs(self, buffers: Sequence[Sequence[int]]) -> tuple[list[Run], int]:
        """Return the pages that the driver means, as runs, and how many are not RAM."""
        size = self._translation.pages_per_pfn
        if self._translation != _AS_IT_IS:
            buffers = [core.translate(pfns, self._translation) for pfns in buffers]
        runs = merge(_flat(buffers))
        if size > 1:
            runs = [(first * size, count * size) for first, count in runs]
        return clip(runs, self._facts.ram)

    def _reclaim(self, runs: list[Run], host: Host) -> None:
        if not runs:
            return
        count = host.discard(runs)
        if count == total(runs):
            self._ledger.mark_reclaimed(runs)
        self._gatekeeper.emit(PagesReclaimed(count, tuple(runs)))


def _flat(buffers: Sequence[Sequence[int]]) -> Sequence[int]:
    """Return the entries of all buffers; one buffer, the usual case, as it is."""
    if len(buffers) == 1:
        return buffers[0]
    return tuple(itertools.chain.from_iterable(buffers))
