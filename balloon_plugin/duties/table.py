"""All duties of one device besides its pages, and which queue is whose."""

from __future__ import annotations

from typing import Any

from balloon_plugin.duties.hinting import Hinting
from balloon_plugin.duties.reporting import Reporting
from balloon_plugin.duties.statistics import Statistics
from balloon_plugin.duties.terms import Terms
from balloon_plugin.events import Answer
from balloon_plugin.gatekeeper import Gatekeeper
from balloon_plugin.kick import Kick
from balloon_plugin.layouts import Queue

__all__ = ["Duties"]


class Duties:
    """The duties of one device.

    :param gatekeeper: is shown what comes, and says what may be given back.

    :ivar statistics: what the driver tells of its memory.
    :ivar reporting: pages that it does not use just now.
    :ivar hinting: pages that a migration need not carry.
    """

    def __init__(self, gatekeeper: Gatekeeper) -> None:
        self._gatekeeper = gatekeeper
        self.statistics = Statistics(gatekeeper.observe)
        self.reporting = Reporting(gatekeeper.emit)
        self.hinting = Hinting(gatekeeper.emit)

    def reset(self) -> None:
        """Forget the driver."""
        self.statistics.reset()
        self.reporting.reset()
        self.hinting.reset()

    def guest_changed(self) -> None:
        """Learn that the guest's memory is another."""
        self.reporting.guest_changed()

    def serve(self, role: Queue, kick: Kick, terms: Terms) -> bool:
        """Serve one queue; return whether more may wait."""
        match role:
            case Queue.STATSQ:
                return self.statistics.serve(kick, legacy=terms.legacy)
            case Queue.FREE_PAGE_VQ:
                return self.hinting.serve(kick)
            case _:
                free = terms.reports_are_free and self._gatekeeper.may_reclaim
                return self.reporting.serve(kick, allowed=free)

    def ask_for_statistics(self, kick: Kick) -> None:
        """Ask if it is time, and no test of the policy is under way.

        Drivers to Linux 4.5 read their target and write ``actual`` when they are asked
        for statistics.
        """
        if self._gatekeeper.gate.targets is not Answer.DEFERRED:
            self.statistics.ask(kick)

    def save(self, now: float) -> dict[str, Any]:
        """Return what a snapshot has to keep of them."""
        return {"stats": self.statistics.save(now), "hints": self.hinting.save()}

    def load(self, state: dict[str, Any], now: float) -> None:
        """Take over what :meth:`save` returned."""
        self.statistics.load(state["stats"], now)
        self.hinting.load(state["hints"])
