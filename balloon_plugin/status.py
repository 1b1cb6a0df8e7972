"""What a query shows: one frozen value, honest by rule 9 of the architecture."""

from __future__ import annotations

from dataclasses import dataclass

from balloon_plugin.events import Gate, Verdict

__all__ = ["Hints", "Sample", "Status"]


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory statistics as the driver sent them, all in one buffer.

    :ivar values: (tag, value) in the order sent, unknown tags included; the tags that
        are known are ``StatTag`` of ``layouts``. What the driver left out
        is missing. Where a tag is there twice, the last one counts.
    :ivar updated: when the buffer came, in seconds of the host's clock.
    :ivar age: seconds since then.
    """

    values: tuple[tuple[int, int], ...]
    updated: float
    age: float


@dataclass(frozen=True, slots=True)
class Hints:
    """How far free page hinting is.

    :ivar command: what the driver reads: an id of 2 or more while hints are wanted, 0
        before, and 1 after that.
    :ivar answer: what the driver last sent: the id when it begins, 0 when it has told
        of all its free pages, ``None`` before its first answer.
    :ivar pages: pages hinted for the last command.
    """

    command: int
    answer: int | None
    pages: int


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
    :ivar offered: the bits that the device offers, those of its policy included.
    :ivar stats: the newest statistics of this session, ``None`` before any came.
    :ivar stats_interval: seconds between two requests for statistics, 0 for none.
    :ivar reported: pages given back in this session because the driver reported them
        free. It may be using them again; they were never in the balloon.
    :ivar hints: how far free page hinting is.
    :ivar inhibited: why discards are inhibited, ``None`` if they are not.
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
    offered: int = 0
    stats: Sample | None = None
    stats_interval: int = 0
    reported: int = 0
    hints: Hints = Hints(0, None, 0)
    inhibited: str | None = None

    @property
    def balloon_pages(self) -> int:
        """Pages to show as ballooned: ``actual``, without those of a probe (rule 9)."""
        return self.actual if self.accepted else 0
