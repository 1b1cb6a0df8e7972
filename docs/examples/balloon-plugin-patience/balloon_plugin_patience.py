"""The policy ``patience``: a driver is believed when it has kept its word for a while.

Asked for 16 pages, a driver that reads its target right takes 16 and stops. One that
reads something else goes on taking, be it slowly because memory is short. So ask for
a few pages, and wait.
"""

from __future__ import annotations

from typing import Any

from balloon_plugin.events import (
    ActualWritten,
    Answer,
    DeviceReset,
    Event,
    Evidence,
    Gate,
    Judgement,
    TimePassed,
    Verdict,
)
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.policies.options import integer, is_whole

MAX_PAGES = 4096
"""16 MiB: a guest should not feel that it is tested."""

MAX_SECONDS = 3600
MAX_ACTUAL = 2**32 - 1

STATES = {
    Judgement.UNDECIDED: "WAITING",
    Judgement.GOOD: "KEPT_ITS_WORD",
    Judgement.BUGGY: "TOOK_TOO_MUCH",
}
SHOWS = {
    Judgement.GOOD: "The driver took what it was asked for, and left it at that.",
    Judgement.BUGGY: "The driver took more than it was asked for.",
}


class PatiencePolicy:
    """Believe a driver that takes exactly what it is asked for, and leaves it at that.

    :param pages: what the driver is asked for, in 4 KiB pages.
    :param seconds: how long its balloon has to keep that size.
    """

    def __init__(self, *, pages: int | str = 16, seconds: int | str = 5) -> None:
        self._pages = integer("pages", pages, 1, MAX_PAGES)
        self._seconds = integer("seconds", seconds, 0, MAX_SECONDS)
        self._begin()

    def _begin(
        self, judgement: Judgement = Judgement.UNDECIDED, actual: int = 0
    ) -> None:
        self._judgement = judgement
        self._actual = actual
        self._since: float | None = None

    @hookimpl
    def policy_observe(self, event: Event) -> None:
        """Follow ``actual`` and the clock until they tell."""
        if isinstance(event, DeviceReset):
            self._begin()
        elif self._judgement is Judgement.UNDECIDED:
            self._learn(event)

    def _learn(self, event: Event) -> None:
        match event:
            case ActualWritten(actual=actual) if actual != self._actual:
                # Only a change counts: old drivers write the same value again whenever
                # the host polls their statistics.
                self._actual, self._since = actual, None
                if actual > self._pages:
                    self._judgement = Judgement.BUGGY
            case TimePassed(now=now) if self._actual == self._pages:
                self._since = now if self._since is None else self._since
                if now - self._since >= self._seconds:
                    self._judgement = Judgement.GOOD

    @hookimpl
    def policy_gate(self, requested: int) -> Gate:
        """Ask for a few pages, then let the user have what the verdict allows."""
        if self._judgement is Judgement.GOOD:
            return Gate(requested, reclaim=True, targets=Answer.ACCEPTED)
        if self._judgement is Judgement.BUGGY:
            reason = "the driver took more than it was asked for"
            return Gate(0, reclaim=False, targets=Answer.REFUSED, reason=reason)
        reason = f"the driver has to be content with {self._pages} pages for a while"
        return Gate(self._pages, reclaim=False, targets=Answer.DEFERRED, reason=reason)

    @hookimpl
    def policy_verdict(self) -> Verdict:
        """Return the judgement, and the ``actual`` that led to it."""
        state = STATES[self._judgement]
        if self._judgement is Judgement.UNDECIDED:
            return Verdict(self._judgement, state)
        evidence = Evidence(f"actual = {self._actual}", SHOWS[self._judgement])
        return Verdict(self._judgement, state, evidence=(evidence,))

    @hookimpl
    def policy_save(self) -> dict[str, Any]:
        """Return what was learnt, without the clock: the next host has another."""
        return {"judgement": self._judgement.value, "actual": self._actual}

    @hookimpl
    def policy_load(self, state: dict[str, Any]) -> None:
        """Take over what was learnt; a wait that was not over begins anew.

        :raises ValueError: if the state is damaged.
        """
        judgement = Judgement(state.get("judgement"))
        actual = state.get("actual")
        if not is_whole(actual, 0, MAX_ACTUAL):
            raise ValueError(f"actual = {actual!r} is no number of pages")
        self._begin(judgement, actual)
