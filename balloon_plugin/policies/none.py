"""The policy ``none``: every driver is believed, as QEMU and its peers do today.

It is what the other policies are measured against. It costs nothing and refuses nobody,
and it gives away memory in use of every guest whose driver is wrong.
"""

from __future__ import annotations

from typing import Any, Final

from balloon_plugin.events import (
    ActualWritten,
    Answer,
    DeviceReset,
    DriverReady,
    Event,
    Evidence,
    FeaturesAcked,
    Gate,
    Judgement,
    PagesDeflated,
    PagesInflated,
    StatsReceived,
    TargetRead,
    Verdict,
)
from balloon_plugin.hookspecs import hookimpl

__all__ = ["NonePolicy"]

_SIGNS: Final[dict[type[Event], str]] = {
    FeaturesAcked: "features acked",
    DriverReady: "driver ready",
    TargetRead: "num_pages read",
    ActualWritten: "actual written",
    PagesInflated: "pages inflated",
    PagesDeflated: "pages deflated",
    StatsReceived: "statistics received",
}
"""What only a driver does, in words. Before the first there is nobody to judge."""


class NonePolicy:
    """Believe every driver without looking, as QEMU does today.

    The gate is open from the start. The verdict is GOOD from the first sign of a
    driver, because the policy acts on that: to believe all is to call all good.
    """

    def __init__(self) -> None:
        self._sign: str | None = None

    @hookimpl
    def policy_observe(self, event: Event) -> None:
        """Remember the first sign of a driver in this session, and nothing else."""
        if isinstance(event, DeviceReset):
            self._sign = None
        elif self._sign is None:
            self._sign = _SIGNS.get(type(event))

    @hookimpl
    def policy_gate(self, requested: int) -> Gate:
        """Let everything through."""
        return Gate(requested, reclaim=True, targets=Answer.ACCEPTED)

    @hookimpl
    def policy_verdict(self) -> Verdict:
        """Call good whatever driver there is."""
        if self._sign is None:
            return Verdict(Judgement.UNDECIDED, "WAITING")
        evidence = Evidence(self._sign, "There is a driver: believed without looking.")
        return Verdict(Judgement.GOOD, "BELIEVED", evidence=(evidence,))

    @hookimpl
    def policy_save(self) -> dict[str, Any]:
        """Return the sign that was seen, if any."""
        return {"sign": self._sign}

    @hookimpl
    def policy_load(self, state: dict[str, Any]) -> None:
        """Take a saved sign over.

        :raises ValueError: if it is none that this policy knows.
        """
        sign = state.get("sign", "")  # no state lacks it: "" is no sign
        if sign not in (None, *_SIGNS.values()):
            raise ValueError(f"the policy none knows no sign of a driver {sign!r}")
        self._sign = sign
