"""Free page reporting: the driver tells of pages that it does not use just now.

They come as ranges of guest memory, tens of MiB each, in parts that the device may
write to (VIRTIO 1.3 §5.5.6.7). Their content is neither read nor copied. A report is
like an inflation without an end: once it is answered the guest may use the pages, and
tells nobody. So they are counted apart from the balloon, and never recorded.

A driver waits for its answer, so that it comes whether or not a page was given back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from balloon_plugin.events import Event, PagesReported, Run
from balloon_plugin.hookspecs import VirtQueue
from balloon_plugin.kick import CHAINS_AT_ONCE, Kick
from balloon_plugin.layouts import PAGE_SIZE
from balloon_plugin.pages import clip, covered, split, whole
from balloon_plugin.virtqueue import Chain

__all__ = ["Reporting"]

PAGES_AT_ONCE: Final = 65536
"""Pages given back before other guests have a turn.

256 MiB, some tens of milliseconds of the kernel's work. A report of Linux has up to 32
ranges of 4 MiB; what is larger is given back in several turns, and answered then.
"""


class Reporting:
    """The reports of one guest.

    :param emit: is shown what was reported.
    """

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._left: list[Run] = []
        self.reset()

    @property
    def given_back(self) -> int:
        """Pages given back in this session; the guest may be using them again."""
        return self._given_back

    def reset(self) -> None:
        """Forget the driver."""
        self._given_back = 0
        self._drop()

    def guest_changed(self) -> None:
        """Give no more back of what was reported: it may not be RAM any longer."""
        self._left = []

    def serve(self, kick: Kick, *, allowed: bool) -> bool:
        """Give reported pages back as far as it is allowed; return if more may wait.

        :param allowed: whether the policy believes the driver, and the content of a
            reported page may change.
        """
        if self._queue is not kick.queue:
            # What was not answered when its queue stopped comes again.
            self._drop()
        if not self._chains and not self._begin(kick):
            return False
        if not allowed:
            self._left = []
        # A host page may be larger than that.
        host_page = kick.host.facts.host_page_size // PAGE_SIZE
        now, self._left = split(self._left, max(PAGES_AT_ONCE, host_page))
        self._count += kick.host.discard(now) if now else 0
        return bool(self._left) or self._finish(kick)

    def _drop(self) -> None:
        self._queue: VirtQueue | None = None
        self._chains: list[Chain] = []
        self._runs = self._left = []
        self._count = 0

    def _begin(self, kick: Kick) -> bool:
        """Take reports from the queue; return whether there were any."""
        self._queue, self._chains = kick.queue, kick.queue.pop(CHAINS_AT_ONCE)
        for chain in self._chains:
            if chain.fault is not None:
                kick.fault(chain.fault)
        parts = [part for chain in self._chains for part in chain.writable]
        facts = kick.host.facts
        # Inwards to whole pages of the host, each in one region: of others a part is
        # not free, or mapped elsewhere.
        runs, outside = clip(covered(parts, facts.host_page_size), facts.ram)
        if outside:
            kick.fault(f"{outside} reported pages are not in RAM")
        self._runs = self._left = whole(runs, facts.host_page_size // PAGE_SIZE)
        return bool(self._chains)

    def _finish(self, kick: Kick) -> bool:
        """Answer all reports that were taken; return whether more may wait."""
        chains, runs, count = self._chains, self._runs, self._count
        self._drop()
        self._given_back += count
        if runs:
            self._emit(PagesReported(count, tuple(runs)))
        kick.answer(chains)
        return len(chains) == CHAINS_AT_ONCE
