"""What has been seen of one driver, and the kinds of drivers that explain it all.

This is elimination: it starts with every kind that the host's knowledge and the
accepted features allow, and each event removes those that would not have done what was
seen. What remains, and how little, is all that the policy goes by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from balloon_plugin.events import Evidence, GuestFacts
from balloon_plugin.policies.evidence.drivers import DriverKind, kinds
from balloon_plugin.policies.evidence.numbers import Encoding, RamMap

__all__ = ["Session"]

MAX_EVIDENCE = 32
"""Entries of evidence kept; a driver that misbehaves for ever repeats itself."""

MAX_TAKEN = 1 << 16
"""Numbers remembered as being in the balloon (256 MiB); a probe needs far fewer."""

MAX_READS = 64
"""Targets remembered between two buffers; a driver may read as often as it likes."""

_ONE_NUMBER_A_PAGE = (Encoding.RIGHT, Encoding.SWAPPED, Encoding.UNSHIFTED)


@dataclass(slots=True)
class Session:
    """One driver session, from reset to reset.

    :ivar facts: what the host knows of the guest.
    :ivar features: the accepted bits, ``None`` before.
    :ivar alive: the kinds that explain everything so far, the best drivers first.
    :ivar entries: entries inflated and not yet deflated.
    :ivar actual: what the driver wrote last, since the last buffer.
    :ivar reads: the targets read since the last buffer, or the last one before.
    :ivar evidence: what was seen and what it showed.
    """

    facts: GuestFacts
    features: int | None = None
    alive: tuple[DriverKind, ...] = ()
    entries: int = 0
    actual: int | None = None
    reads: list[int] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)
    tracked: bool = True
    evidence: list[Evidence] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with every kind that is possible."""
        if not self.alive:
            self.alive = kinds(self.facts, self.features)

    @property
    def lead(self) -> DriverKind | None:
        """The kind to go by, or ``None`` if no known one explains what was seen."""
        return self.alive[0] if self.alive else None

    def know(self, facts: GuestFacts, features: int | None) -> None:
        """Learn of the host or the features; drop the kinds that these rule out."""
        self.facts, self.features = facts, features
        possible = set(kinds(facts, features))
        self.alive = tuple(kind for kind in self.alive if kind in possible)

    def note(self, event: str, shows: str) -> None:
        """Keep a piece of evidence."""
        if len(self.evidence) < MAX_EVIDENCE:
            self.evidence.append(Evidence(event, shows))

    def keep(self, explains: Callable[[DriverKind], bool], event: str) -> None:
        """Drop the kinds that do not explain an event, and say what that shows."""
        before = self.alive
        self.alive = tuple(kind for kind in before if explains(kind))
        if len(self.alive) < len(before):
            self.note(event, _shows(before, self.alive))

    # --- events ---

    def read(self, num_pages: int) -> None:
        """See the driver read its target."""
        if len(self.reads) < MAX_READS:
            self.reads.append(num_pages)

    def inflate(self, entries: Sequence[int], advertised: int) -> None:
        """See a buffer of the inflate queue.

        :param advertised: the target that it read if it was not seen to read one.
        """
        ram = RamMap.of(self.facts.ram)
        targets = self.reads or [advertised]
        before, after = self.entries, self.entries + len(entries)
        known = self.tracked and not self.taken.isdisjoint(entries)

        def explains(kind: DriverKind) -> bool:
            return (
                len(entries) % kind.entries_per_unit == 0
                and not (known and kind.encoding in _ONE_NUMBER_A_PAGE)
                and any(_may_reach(kind, target, before, after) for target in targets)
                and ram.could_hold(kind.encoding, kind.page, entries)
            )

        shown = "/".join(str(target) for target in sorted(set(targets))[:3])
        self.keep(explains, f"{len(entries)} entries for a target of {shown}")
        self.entries = after
        if self.tracked:
            self.taken.update(entries)
            self.tracked = len(self.taken) <= MAX_TAKEN
        self._end_of_buffer()

    def deflate(self, entries: Sequence[int]) -> None:
        """See a buffer of the deflate queue."""
        if self.tracked and not self.taken.issuperset(entries):
            self.keep(
                lambda kind: kind.encoding not in _ONE_NUMBER_A_PAGE,
                f"{len(entries)} entries given back, some never taken",
            )
        self.taken.difference_update(entries)
        self.entries = max(0, self.entries - len(entries))
        self._end_of_buffer()

    def write(self, actual: int) -> None:
        """See the driver write ``actual``; a value that nothing explains is let pass.

        Two of its threads may write at once (OOM notifier and worker, 4.6 and later),
        so a wrong value proves nothing, but one that only some kinds would write does.
        """
        self.actual = actual
        if any(self.agrees(kind) for kind in self.alive):
            self.keep(self.agrees, f"actual = {actual}")

    def agrees(self, kind: DriverKind) -> bool:
        """Return whether ``actual`` is what this kind would have written."""
        return kind.writes_actual and self.actual == kind.writes(
            kind.units(self.entries)
        )

    def _end_of_buffer(self) -> None:
        self.reads = self.reads[-1:]
        self.actual = None

    # --- snapshots ---

    def save(self) -> dict[str, Any]:
        """Return the session as a value that JSON can carry."""
        return {
            "features": self.features,
            "alive": [[kind.name, kind.page] for kind in self.alive],
            "entries": self.entries,
            "actual": self.actual,
            "reads": self.reads,
            "taken": sorted(self.taken),
            "tracked": self.tracked,
            "evidence": [[item.event, item.shows] for item in self.evidence],
        }

    @classmethod
    def load(cls, facts: GuestFacts, state: dict[str, Any]) -> Session:
        """Return the session that :meth:`save` described.

        :raises ValueError: if it is damaged.
        """
        try:
            every = {(kind.name, kind.page): kind for kind in kinds(facts, None)}
            session = cls(facts, state["features"])
            session.alive = tuple(
                every[name, page]
                for name, page in state["alive"]
                if (name, page) in every
            )
            session.entries = int(state["entries"])
            session.actual = state["actual"]
            session.reads = [int(value) for value in state["reads"]]
            session.taken = {int(value) for value in state["taken"]}
            session.tracked = bool(state["tracked"])
            session.evidence = [Evidence(*pair) for pair in state["evidence"]]
        except (KeyError, TypeError) as error:
            message = f"not a saved evidence session: {error!r}"
            raise ValueError(message) from error
        return session


def _may_reach(kind: DriverKind, target: int, before: int, after: int) -> bool:
    """Return whether a kind that reads ``target`` may grow to ``after`` entries.

    Balloon compaction (Linux 3.8 and later) puts one page in before it takes another
    out, so a driver at its target may be one page above it.
    """
    if not kind.deflates and kind.reads(target) < kind.units(before):
        return True
    most = kind.stops_at(target)
    one_page = after - before == kind.page
    return kind.units(after) <= most + (kind.page if one_page else 0)


def _shows(before: Sequence[DriverKind], after: Sequence[DriverKind]) -> str:
    """Say in a sentence what it means that some kinds are ruled out."""
    if not after:
        return "no driver that is known would do this"
    gone = {kind.name for kind in before} - {kind.name for kind in after}
    left = list(dict.fromkeys(kind.name for kind in after))
    if len(left) == 1:
        pages = {kind.page for kind in after}
        size = f" with pages of {pages.pop() * 4} KiB" if len(pages) == 1 else ""
        return f"only {left[0]}{size} would do this"
    if gone:
        return f"{_some(sorted(gone))} would not do this"
    return f"the guest's pages are of {_sizes(after)} KiB"


def _some(names: Sequence[str]) -> str:
    most = 3
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more


def _sizes(alive: Sequence[DriverKind]) -> str:
    return ", ".join(str(size * 4) for size in sorted({kind.page for kind in alive}))
