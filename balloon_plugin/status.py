"""What a query shows: one frozen value, honest by rule 9 of the architecture."""

from __future__ import annotations

from dataclasses import dataclass

from balloon_plugin.events import Gate, Verdict

__all__ = ["Status"]


@dataclass(frozen=True, slots=True)
class Status:
    """All that is known of one device at a moment. Pages are 4 KiB pages.

    :ivar policy: the policy with its options, as it was named.
    :ivar requested: the target that the user asked for.
    :ivar advertised: the target that the driver reads.
    :ivar actual: what the driver last said is in the balloon, clamped to its RAM.
    :ivar actual_clamped: whether it said more than its RAM.
    :ivar ballooned: pages whose numbers are in the balloon by the device's own record.
    :ivar reclaimed: pages in the balloon that were really given back to the host.
    :ivar ram: the guest's RAM.
    :ivar features: the bits that the driver accepted, ``None`` before it did.
    :ivar driver: whether a driver has shown itself since the last reset.
    :ivar faults: how often the driver broke the specification in this session.
    :ivar last_fault: the newest of them, a sentence, or an empty text.
    :ivar accepted: whether in this session a target was accepted, so that pages in the
        balloon may be a user's and not only a probe's.
    :ivar gate: what the policy allows.
    :ivar verdict: what the policy has concluded, with its evidence.
    """

    policy: str
    requested: int
    advertised: int
    actual: int
    actual_clamped: bool
    ballooned: int
    reclaimed: int
    ram: int
    features: int | None
    driver: bool
    faults: int
    last_fault: str
    accepted: bool
    gate: Gate
    verdict: Verdict

    @property
    def balloon_pages(self) -> int:
        """Pages to show as ballooned: ``actual``, without those of a probe (rule 9)."""
        return self.actual if self.accepted else 0
