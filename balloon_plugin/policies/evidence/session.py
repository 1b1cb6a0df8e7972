"""What has been seen of one driver, and the kinds of drivers that explain it all.

This is elimination: it starts with every kind that the host's knowledge and the
accepted features allow, and each event removes those that would not have done what was
seen. What remains, and how little, is all that the policy goes by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from balloon_plugin.events import Evidence, GuestFacts
from balloon_plugin.layouts import PAGE_SIZE
from balloon_plugin.policies.evidence.drivers import DriverKind, kinds
from balloon_plugin.policies.evidence.numbers import (
    Buffer,
    Encoding,
    Entries,
    RamMap,
    swap32,
)
from balloon_plugin.policies.evidence.words import shown_by

__all__ = ["EMPTY", "MAX_EVIDENCE", "MAX_READS", "MOST", "WHOLE", "Session"]

MAX_EVIDENCE: Final = 30
"""Entries of evidence kept; a driver that misbehaves for ever repeats itself."""

MAX_TAKEN: Final = 1 << 16
"""Numbers remembered as being in the balloon (256 MiB); a probe needs far fewer."""

MAX_READS: Final = 8
"""Different targets remembered; a driver may read as often as it likes."""

MOST: Final = (1 << 32) - 1
"""What fits in ``num_pages`` and ``actual``; no honest balloon comes near it."""

WHOLE: Final = 256
"""Entries of a buffer that is always sent whole (NetBSD's ``VIOMB_BUFSIZE`` pages)."""

EMPTY: Final = (0,) * WHOLE
"""The entries of a buffer that nobody filled."""

_ONE_NUMBER_A_PAGE: Final = (Encoding.RIGHT, Encoding.SWAPPED, Encoding.UNSHIFTED)


@dataclass(slots=True)
class Session:
    """One driver session, from reset to reset.

    :ivar facts: what the host knows of the guest.
    :ivar features: the accepted bits, ``None`` before.
    :ivar fresh: whether no buffer was seen yet.
    :ivar alive: the kinds that explain everything so far, the best drivers first.
    :ivar last: the kind that led the last ones, when none is left.
    :ivar places: the addresses of its queues in one: only what all are aligned to is 0.
    :ivar entries: entries inflated and not yet deflated.
    :ivar actual: what the driver wrote last, ``None`` if it never did.
    :ivar stated: whether it wrote that after it last moved pages.
    :ivar yielded: whether it moved pages out last.
    :ivar reads: the targets read, the latest last, each with the entries in the largest
        buffer inflated since. Any of them may be what the driver acts on: a read of the
        whole configuration space looks like one of the target. But whoever has filled a
        buffer reads again before the next, and only one page may be moved in between.
    :ivar buffer: the entries of the last buffer in either direction; zeros at first.
    :ivar count: how many entries of it count; ``None`` for all.
    :ivar taken: the numbers in the balloon, as long as ``tracked``.
    :ivar lent: the kinds that would be moving a page just now.
    :ivar evidence: what was seen and what it showed.
    """

    facts: GuestFacts
    features: int | None = None
    fresh: bool = True
    alive: tuple[DriverKind, ...] = ()
    last: DriverKind | None = None
    places: int = 0
    entries: int = 0
    actual: int | None = None
    stated: bool = False
    yielded: bool = False
    reads: dict[int, int] = field(default_factory=dict)
    buffer: Entries = EMPTY
    count: int | None = None
    taken: set[int] = field(default_factory=set)
    tracked: bool = True
    lent: tuple[DriverKind, ...] = ()
    evidence: list[Evidence] = field(default_factory=list)
    ram: RamMap = field(init=False)

    def __post_init__(self) -> None:
        """Begin with every kind that is possible."""
        self.ram = RamMap.of(self.facts.ram)
        self.alive = tuple(filter(self._placed, kinds(self.facts, self.features)))

    @property
    def lead(self) -> DriverKind | None:
        """The kind to go by, or ``None`` if no known one explains what was seen."""
        return self.alive[0] if self.alive else None

    @property
    def latest(self) -> int:
        """The target that was read last; 0 if none was yet."""
        return next(reversed(self.reads), 0)

    @property
    def size(self) -> int:
        """The balloon's size in the driver's units.

        Of one that no kind explains any more, what it says itself as soon as it does;
        it is taken for what it was last taken for.
        """
        kind = self.lead or self.last
        if self.lead is None and self.stated and self.actual is not None:
            return swap32(self.actual) if kind and kind.swaps_actual else self.actual
        return kind.units(self.entries) if kind else self.entries

    def describe(self, facts: GuestFacts) -> None:
        """Learn what the host knows; drop the kinds that this rules out."""
        self.facts = facts
        self.ram = RamMap.of(facts.ram)
        possible = set(kinds(facts, self.features))
        self.keep(possible.__contains__, lambda: "what the host says of the guest")

    def accept(self, features: int) -> None:
        """See the driver accept its features."""
        self.features = features
        possible = set(kinds(self.facts, features))
        self.keep(possible.__contains__, lambda: f"features acked = {features:#x}")

    def place(self, index: int, desc: int) -> None:
        """See where the driver keeps a queue.

        Kernels before 3.4 keep each on a page of its own (``alloc_pages_exact``), so
        what lies on no larger page is of none with larger pages.
        """
        self.places |= desc
        self.keep(self._placed, lambda: f"queue {index} is at {desc:#x}")

    def _placed(self, kind: DriverKind) -> bool:
        return not (kind.counts_guest_pages and self.places % (kind.page * PAGE_SIZE))

    def note(self, event: str, shows: str) -> None:
        """Keep a piece of evidence; of two that are the same, the later."""
        evidence = Evidence(event, shows)
        if evidence in self.evidence:
            self.evidence.remove(evidence)
        if len(self.evidence) < MAX_EVIDENCE:
            self.evidence.append(evidence)

    def keep(
        self, explains: Callable[[DriverKind], bool], event: Callable[[], str]
    ) -> None:
        """Drop the kinds that do not explain an event, and say what that shows.

        :param event: gives the event in a few words, if they are needed.
        """
        before = self.alive
        self.alive = tuple(filter(explains, before))
        if len(self.alive) < len(before):
            if not self.alive:
                self.last = before[0]
            self.note(event(), shown_by(before, self.alive))

    # --- events ---

    def read(self, num_pages: int) -> None:
        """See the driver read its target."""
        reads = self.reads
        reads.pop(num_pages, None)
        reads[num_pages] = 0
        if len(reads) > MAX_READS:
            # The largest and the smallest allow all that those between them do.
            ordered = sorted(reads), sorted(reads, key=swap32)
            worth = {num_pages, *(each[end] for each in ordered for end in (0, -1))}
            del reads[next(value for value in reads if value not in worth)]

    def inflate(self, entries: Entries) -> None:
        """See a buffer of the inflate queue, of a driver that has read a target.

        :param entries: not empty.
        """
        latest = self.latest
        new = entries[: max(0, latest - self.entries)]
        buffer = Buffer(entries, self.ram, self.taken)
        is_within = self.entries + len(entries) <= latest
        lent: list[DriverKind] = []

        def explains(kind: DriverKind) -> bool:
            if kind.stale:
                return self._is_whole(entries, new) and self._sends(
                    kind, Buffer(new, self.ram, self.taken), lent, is_within=True
                )
            return self._sends(kind, buffer, lent, is_within=is_within)

        self.keep(explains, lambda: f"{len(entries)} entries for a target of {latest}")
        self.lent += tuple(lent)
        self.stated = self.yielded = self.fresh = False
        entries = self._counted(entries, new)
        self.entries = min(self.entries + len(entries), MOST)
        if self.tracked:
            self.taken.update(entries)
            if len(self.taken) > MAX_TAKEN:
                self._forget_taken()
        self._spend(len(entries))

    def _sends(
        self,
        kind: DriverKind,
        buffer: Buffer,
        lent: list[DriverKind],
        *,
        is_within: bool,
    ) -> bool:
        """Return whether a kind could have sent a buffer now.

        :param lent: is given the kind if it would have to be a page that is moved.
        :param is_within: whether the balloon does not grow beyond the latest target.
        """
        # No entry is less than a unit, nor does a right driver stop below its target.
        if kind.swaps_target or not is_within:
            after = min(self.entries + buffer.count, MOST)
            if not self._may_reach(kind, self.entries, after):
                if not self._may_move(kind, buffer.count):
                    return False
                lent.append(kind)
        whole = buffer.count % kind.entries_per_unit == 0
        return whole and buffer.fits(kind.encoding, kind.page)

    def _is_whole(self, entries: Entries, new: Entries) -> bool:
        """Return whether only the new entries differ from the buffer before."""
        rest = len(new)
        return (
            len(entries) == WHOLE and rest > 0 and entries[rest:] == self.buffer[rest:]
        )

    def _counted(self, entries: Entries, new: Entries) -> Entries:
        """Return the entries that count, of a driver as it is known now."""
        stale = self.lead is not None and self.lead.stale
        self.count = len(new) if stale else None
        self.buffer = entries if stale else EMPTY
        return new if stale else entries

    def _spend(self, entries: int) -> None:
        """Forget the targets that no driver can have in mind after these entries."""
        latest = self.latest
        largest = max([kind.page for kind in self.alive], default=0)
        for value, size in tuple(self.reads.items()):
            self.reads[value] = most = max(size, entries)
            if most > largest and value != latest:
                del self.reads[value]

    def deflate(self, entries: Entries) -> None:
        """See a buffer of the deflate queue."""
        entries = self._counted(entries, entries[: max(0, self.entries - self.latest)])
        if self.tracked and not self.taken.issuperset(entries):
            self.keep(
                lambda kind: kind.encoding not in _ONE_NUMBER_A_PAGE,
                lambda: f"{len(entries)} entries given back, some never taken",
            )
        self.taken.difference_update(entries)
        self.entries = max(0, self.entries - len(entries))
        self.lent, self.fresh = (), False
        self.stated, self.yielded = False, True

    def write(self, actual: int) -> None:
        """See the driver write ``actual``; a value that nothing explains is let pass.

        Two of its threads may write at once (OOM notifier and worker, 4.6 and later),
        so a wrong value proves nothing, but one that only some kinds would write does.
        """
        self.actual, self.stated = actual, True
        if any(self.agrees(kind) for kind in self.alive):
            self.keep(self.agrees, lambda: f"actual = {actual}")

    def agrees(self, kind: DriverKind) -> bool:
        """Return whether ``actual`` is what this kind would have written."""
        return kind.writes_actual and self.actual == kind.writes(
            kind.units(self.entries)
        )

    def trust(self, alive: Iterable[DriverKind]) -> None:
        """Go on with these kinds; which page is in the balloon matters no more."""
        self.alive = tuple(alive)
        self._forget_taken()

    def _forget_taken(self) -> None:
        self.tracked = False
        self.taken.clear()

    def _may_reach(self, kind: DriverKind, before: int, after: int) -> bool:
        """Return whether a kind may grow to ``after`` entries, by what it has read."""
        latest = self.latest
        if _reaches(kind, latest, before, after):
            return True
        reads = [
            value
            for value, size in self.reads.items()
            if size <= kind.page or value == latest
        ]
        return any(_reaches(kind, value, before, after) for value in _seen(reads))

    def _may_move(self, kind: DriverKind, entries: int) -> bool:
        """Return whether these entries may be a page that takes another's place.

        At any time, whatever the target, but each is followed by the other's way out.
        """
        return kind.compacts and entries == kind.page and kind not in self.lent


def _reaches(kind: DriverKind, target: int, before: int, after: int) -> bool:
    """Return whether a kind that reads ``target`` may grow to ``after`` entries."""
    units = kind.units(before)
    return kind.units(after) <= kind.stops_at(target, units) or (
        not kind.deflates and kind.reads(target) < units
    )


def _seen(reads: Sequence[int]) -> Iterator[int]:
    """Yield the targets that a driver may have seen.

    A target that changes while it is read byte by byte is seen as a mixture: the first
    bytes of the old one, the last of the new.
    """
    yield from reads
    for old, new in pairwise(reads):
        for mask in (0xFF, 0xFFFF, 0xFFFFFF):
            yield old & mask | new & ~mask
