"""The vocabulary: what happens to a balloon, and what a policy concludes from it.

Everything here is a frozen value. Nothing here knows the wire, the device or the host,
so a policy that sees only these values runs against a live guest, a simulated one and a
recording alike. Numbers of pages are always 4 KiB pages, page numbers (``pfns``)
guest-physical addresses divided by 4096, whatever the guest's own page size is.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

__all__ = [
    "ActualWritten",
    "Answer",
    "ByteOrder",
    "Defect",
    "DeviceReset",
    "DriverReady",
    "Event",
    "Evidence",
    "FeaturesAcked",
    "Gate",
    "GateChanged",
    "GuestDescribed",
    "GuestFacts",
    "GuestFault",
    "InhibitionChanged",
    "Judgement",
    "MemoryRange",
    "PagesDeflated",
    "PagesHinted",
    "PagesInflated",
    "PagesReclaimed",
    "PagesReported",
    "PluginFailed",
    "PolicyChanged",
    "PolicyEvent",
    "QueueSeen",
    "Run",
    "ShadowDiverged",
    "ShadowGuesses",
    "StateLoaded",
    "StatsReceived",
    "TargetAnswered",
    "TargetRead",
    "TargetReply",
    "TargetRequested",
    "TimePassed",
    "Translation",
    "Verdict",
    "VerdictChanged",
]

_MOST_AT_ONCE: Final = 1 << 18

Run: TypeAlias = tuple[int, int]
"""Consecutive pages: the first page number and how many (1 or more)."""


class ByteOrder(enum.Enum):
    """Byte order of a guest, or of one family of its fields."""

    LITTLE = "little"
    BIG = "big"


@dataclass(frozen=True, slots=True)
class MemoryRange:
    """A range of guest-physical RAM.

    :ivar start: guest-physical address of the first byte.
    :ivar size: bytes, a multiple of 4096.
    """

    start: int
    size: int


@dataclass(frozen=True, slots=True)
class GuestFacts:
    """What the host knows of its guest; ``None`` where it does not.

    :ivar ram: the guest's RAM by ascending address; ranges do not overlap.
    :ivar byte_order: of the guest's CPU.
    :ivar page_size: bytes in the guest kernel's page.
    :ivar host_page_size: bytes that the host can give back at the least.
    """

    ram: tuple[MemoryRange, ...]
    byte_order: ByteOrder | None = None
    page_size: int | None = None
    host_page_size: int = 4096

    @property
    def ram_pages(self) -> int:
        """RAM in 4 KiB pages."""
        return sum(part.size for part in self.ram) // 4096


# --- conclusions --------------------------------------------------------------------


class Defect(enum.Enum):
    """One known bug of a driver."""

    ENDIAN_TARGET = "reads num_pages in the wrong byte order"
    PAGE_SHIFT = "shifts page numbers the wrong way"
    PAGE_UNITS = "sends guest page numbers unshifted"
    PFN_ORDER = "sends page numbers in the wrong byte order"
    ACTUAL_ORDER = "writes actual in the wrong byte order"
    PFN_WIDTH = "sends 8-byte page numbers"
    STALE_ENTRIES = "sends old page numbers behind the new ones"
    UNIT_SCALE = "counts in units other than 4 KiB"
    NO_ACTUAL = "never writes actual"
    NO_DEFLATE = "never deflates"
    NEEDS_CONFIG_IRQ = "reads its target only after a config interrupt"


class Judgement(enum.Enum):
    """Whether the driver of this session can be believed."""

    UNDECIDED = "undecided"
    GOOD = "good"
    BUGGY = "buggy"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Which event showed what.

    :ivar event: the event, in a few words (``actual = 256``).
    :ivar shows: what follows from it, a sentence for a person.
    """

    event: str
    shows: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy has concluded so far in this driver session.

    :ivar judgement: UNDECIDED, GOOD or BUGGY.
    :ivar state: the policy's own name for where it stands.
    :ivar defects: the driver's bugs that have been shown, not merely suspected.
    :ivar evidence: oldest first; policies keep it short (tens of entries at most).
    """

    judgement: Judgement
    state: str
    defects: tuple[Defect, ...] = ()
    evidence: tuple[Evidence, ...] = ()


class Answer(enum.Enum):
    """What becomes of a target that the user asks for."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Translation:
    """How to read a driver whose numbers are wrong in a known, reversible way.

    The default changes nothing. It concerns page numbers and ``actual``; what the
    driver reads as its target is the policy's own affair.

    :ivar swap_pfns: page numbers are in the other byte order.
    :ivar slot_entries: 32-bit entries that each page number takes; the first counts.
    :ivar pages_per_pfn: number ``n`` stands for this many pages, from ``n`` times this.
    :ivar swap_actual: ``actual`` is in the other byte order.
    :ivar pages_per_unit: pages that one unit of ``actual`` stands for.

    All that is counted is at most 2**18: one GiB, the largest page of any CPU.
    """

    swap_pfns: bool = False
    slot_entries: int = 1
    pages_per_pfn: int = 1
    swap_actual: bool = False
    pages_per_unit: int = 1

    @property
    def is_sound(self) -> bool:
        """Whether numbers can be read by it, whoever made it."""
        swaps = self.swap_pfns, self.swap_actual
        counts = self.slot_entries, self.pages_per_pfn, self.pages_per_unit
        return all(type(swap) is bool for swap in swaps) and all(
            type(count) is int and 1 <= count <= _MOST_AT_ONCE for count in counts
        )


@dataclass(frozen=True, slots=True)
class Gate:
    """The whole power of a policy over the device.

    :ivar num_pages: what the driver reads as its target, 0 to 2**32 - 1 pages.
    :ivar reclaim: whether inflated pages may be given back to the host.
    :ivar targets: what happens to the user's targets. A DEFERRED one is kept, and takes
        effect when the gate accepts; a REFUSED one is forgotten.
    :ivar reason: why, for the person whose target is not accepted.
    :ivar translation: how to read the driver's page numbers and ``actual``.
    :ivar nudges: how often the policy wanted the driver woken so far; one more sends a
        config interrupt although nothing else changed.
    :ivar entries: how many entries of the buffer that was seen last count, from the
        first on; ``None`` for all.
    """

    num_pages: int
    reclaim: bool
    targets: Answer
    reason: str = ""
    translation: Translation = Translation()
    nudges: int = 0
    entries: int | None = None


@dataclass(frozen=True, slots=True)
class TargetReply:
    """The answer to ``set_target``.

    :ivar answer: accepted, deferred or refused.
    :ivar reason: why it was not accepted, or how it was changed (clamped to RAM).
    :ivar requested: the target now kept, in pages.
    """

    answer: Answer
    reason: str
    requested: int


# --- facts about the driver and the host: what a policy observes --------------------


@dataclass(frozen=True, slots=True)
class GuestDescribed:
    """The host says what it knows of the guest; first of all events, and on change."""

    facts: GuestFacts


@dataclass(frozen=True, slots=True)
class FeaturesAcked:
    """The driver accepted these feature bits (all 64, transport bits included)."""

    features: int


@dataclass(frozen=True, slots=True)
class DriverReady:
    """The driver set DRIVER_OK. Old drivers inflate before that."""


@dataclass(frozen=True, slots=True)
class QueueSeen:
    """The driver uses its queues for the first time in this session; one for each.

    It comes before the first buffer.

    :ivar index: the queue's number.
    :ivar desc: guest-physical address of its descriptor table, or of its descriptor
        ring. Linux puts it on a page of its own, of the guest's size.
    """

    index: int
    desc: int


@dataclass(frozen=True, slots=True)
class TargetRead:
    """The driver read all of ``num_pages``, and found this value.

    Of a target that changed while it was read byte by byte that is a mixture.
    """

    num_pages: int


@dataclass(frozen=True, slots=True)
class ActualWritten:
    """The driver wrote the last byte of ``actual``, which now has this value."""

    actual: int


@dataclass(frozen=True, slots=True)
class PagesInflated:
    """One inflate buffer, before it is returned.

    :ivar pfns: its 32-bit entries in order, decoded by the byte order of the queue,
        unchecked: duplicates and numbers outside RAM are evidence.
    """

    pfns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PagesDeflated:
    """One deflate buffer, before it is returned; ``pfns`` as in an inflation."""

    pfns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StatsReceived:
    """Memory statistics as (tag, value), in the order sent, unknown tags included."""

    stats: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class DeviceReset:
    """The driver session ended: reboot, kexec, module removal. Nothing learnt holds."""


@dataclass(frozen=True, slots=True)
class TargetRequested:
    """The user asked for this many pages in the balloon (clamped to RAM)."""

    num_pages: int


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The host's clock, in seconds from any start; told about once a second."""

    now: float


# --- facts about the device itself: for observers only ------------------------------


@dataclass(frozen=True, slots=True)
class GuestFault:
    """The driver broke the specification; the device went on.

    :ivar what: what was wrong, a sentence.
    :ivar queue: the queue's number where it was in a queue.
    """

    what: str
    queue: int | None = None


@dataclass(frozen=True, slots=True)
class GateChanged:
    """The policy opened or shut the gate, or advertises another target."""

    gate: Gate


@dataclass(frozen=True, slots=True)
class VerdictChanged:
    """The policy's judgement, state or list of defects is another than before."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class PagesReclaimed:
    """The host gave pages back.

    :ivar num_pages: pages in the batch that were really discarded.
    :ivar runs: the runs that were asked for.
    """

    num_pages: int
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class PagesReported:
    """The driver reported pages that it does not use just now; they are not ballooned.

    :ivar num_pages: how many were given back: none where the gate, an inhibition or
        ``poison_val`` forbids it. The guest may use any again, and tells nobody.
    :ivar runs: the pages, in whole pages of the host.
    """

    num_pages: int
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class PagesHinted:
    """The driver hinted at pages whose content is of no use; none is given back.

    Whoever migrates the guest need not carry those that the guest has not written to
    since the command was given.

    :ivar command: the id of the command, as ``start_hinting`` returned it.
    :ivar runs: the pages.
    """

    command: int
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class InhibitionChanged:
    """The host forbade discards, or (``None``) allows them again.

    :ivar reason: why they are forbidden.
    """

    reason: str | None


@dataclass(frozen=True, slots=True)
class TargetAnswered:
    """What ``set_target`` told the user.

    :ivar reply: the answer.
    :ivar asked: the target that was asked for, clamped to RAM; ``None`` where one that
        waited for the verdict is refused in the end.
    """

    reply: TargetReply
    asked: int | None = None


@dataclass(frozen=True, slots=True)
class StateLoaded:
    """A saved session was loaded.

    :ivar verdict_known: whether the policy's part was in it and was taken.
    :ivar ballooned: pages in the restored balloon.
    :ivar state: the part of the snapshot that is the policy's and the user's.
    """

    verdict_known: bool
    ballooned: int = 0
    state: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """Another policy judges the driver from now on.

    :ivar policy: its name, with its options.
    :ivar held: whether the balloon is held until the driver is reset, because it was in
        use and the policy had no verdict on it.
    :ivar offers: feature bits that it offers from now on besides the device's own.
    """

    policy: str
    held: bool
    offers: int = 0


@dataclass(frozen=True, slots=True)
class PluginFailed:
    """A policy or observer raised; it has no say any more.

    A failed policy leaves a gate that reclaims nothing and refuses targets until the
    driver session ends; a failed observer is called no more.

    :ivar plugin: name under which it is registered.
    :ivar hook: the hook that raised.
    :ivar error: the exception as text.
    """

    plugin: str
    hook: str
    error: str


@dataclass(frozen=True, slots=True)
class ShadowDiverged:
    """A policy without power would have acted otherwise than the one that has it.

    Told when this begins, and when it becomes another difference than before.

    :ivar policy: the shadow, with its options.
    :ivar at: the event after which it would, counted from 1 among those that policies
        observe.
    :ivar gate: the shadow's gate.
    :ivar live: the gate that holds.
    """

    policy: str
    at: int
    gate: Gate
    live: Gate


@dataclass(frozen=True, slots=True)
class ShadowGuesses:
    """What a shadow concludes is only a guess from here to the next reset.

    :ivar policy: the shadow, with its options.
    :ivar at: the event from which on that is so, counted as for ``ShadowDiverged``.
    :ivar why: what the guest never saw, a sentence.
    """

    policy: str
    at: int
    why: str


PolicyEvent: TypeAlias = (
    GuestDescribed
    | FeaturesAcked
    | DriverReady
    | QueueSeen
    | TargetRead
    | ActualWritten
    | PagesInflated
    | PagesDeflated
    | StatsReceived
    | DeviceReset
    | TargetRequested
    | TimePassed
)
"""An event that policies observe."""

Event: TypeAlias = (
    PolicyEvent
    | GuestFault
    | GateChanged
    | VerdictChanged
    | PagesReclaimed
    | PagesReported
    | PagesHinted
    | InhibitionChanged
    | TargetAnswered
    | StateLoaded
    | PolicyChanged
    | PluginFailed
    | ShadowDiverged
    | ShadowGuesses
)
"""Any event; those beside :data:`PolicyEvent` are for observers only."""
