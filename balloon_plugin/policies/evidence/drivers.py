"""Every kind of driver that there is, as a table: what each would do.

The policy keeps those kinds that explain all it has seen. A row states facts about real
drivers, with their source; nothing here decides anything. Facts marked *second-hand*
come from other people's notes, not from reading the driver.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Final

from balloon_plugin.events import ByteOrder, Defect, GuestFacts
from balloon_plugin.layouts import PAGE_SIZE, Feature
from balloon_plugin.policies.evidence.numbers import Encoding, swap32

__all__ = ["DriverKind", "kinds"]

PAGES: Final = (1, 2, 4, 8, 16, 32, 64, 256)
"""Guest page sizes that Linux has had, in 4 KiB pages: 4K to 256K, and Hexagon's 1M."""

LARGEST_PAGE: Final = 1 << 30
"""Bytes of the largest page of any CPU; a host that says more is not believed."""

OLD_LARGE_PAGES: Final = (4, 16)
"""Large pages of the kernels before 3.4 that had a virtio balloon to speak of.

16K and 64K: ppc64, ia64 and MIPS. Other sizes count only if the host knows of them: a
wrong number for 8 KiB pages looks like a right one in the lower half of memory.
"""


@dataclass(frozen=True, slots=True, eq=False)
class DriverKind:
    """One kind of driver with one size of pages; there is one object for each.

    :ivar name: for people.
    :ivar defects: its bugs; none for a driver that is right.
    :ivar encoding: how it writes page numbers.
    :ivar page: 4 KiB pages in its guest's page.
    :ivar swaps_target: it reads ``num_pages`` in the wrong byte order.
    :ivar swaps_actual: it writes ``actual`` in the wrong byte order.
    :ivar entries_per_unit: entries for each unit of its target and ``actual``.
    :ivar scale: 4 KiB pages that one unit of its target and ``actual`` stands for.
    :ivar stride: units that it moves for each one between its target and its balloon.
    :ivar stale: it sends its buffer whole: behind the new entries those of before.
    :ivar deflates: whether a target below its balloon makes it deflate.
    :ivar frees_wrong: its deflation frees pages that it does not own.
    :ivar writes_actual: whether it writes ``actual`` at all.
    :ivar compacts: its pages may be moved (balloon compaction, Linux 3.8): one page is
        put in beyond any target, and then another is taken out.
    :ivar version_1: whether it accepts VERSION_1; ``None`` if it may or may not.
    :ivar indirect: whether it accepts INDIRECT_DESC, which came with v2.6.31.
    :ivar byte_order: of the CPUs that it exists on; ``None`` for both.
    """

    name: str
    defects: tuple[Defect, ...] = ()
    encoding: Encoding = Encoding.RIGHT
    page: int = 1
    swaps_target: bool = False
    swaps_actual: bool = False
    entries_per_unit: int = 1
    scale: int = 1
    stride: int = 1
    stale: bool = False
    deflates: bool = True
    frees_wrong: bool = False
    writes_actual: bool = True
    compacts: bool = False
    version_1: bool | None = None
    indirect: bool | None = None
    byte_order: ByteOrder | None = None

    def reads(self, num_pages: int) -> int:
        """Return the target that it sees when it is shown ``num_pages``."""
        return swap32(num_pages) if self.swaps_target else num_pages

    def shown(self, goal: int, units: int = 0) -> int:
        """Return what to show it so that it comes to ``goal``, in its own units.

        :param units: what is in its balloon now.
        """
        target = goal if self.stride == 1 else self._leap(goal, units)
        return swap32(target) if self.swaps_target else target

    def _leap(self, goal: int, units: int) -> int:
        """Return the target for a driver that moves ``stride`` times the difference.

        After a leap up it compares with the target that it read before. It gives back
        what it takes for surplus, if that much was in the balloon. So a short way up
        begins with one down.
        """
        if 0 < (goal - units) * (self.stride - 1) <= units:
            goal = goal // 2 // self.page * self.page
        return units + (goal - units) // self.stride

    def stops_at(self, num_pages: int, units: int = 0) -> int:
        """Return the units at which it stops inflating when shown ``num_pages``.

        :param units: what is in its balloon before.
        """
        target = self.reads(num_pages)
        if self.stride > 1:
            return units + max(0, target - units) * self.stride
        return self.rests_at(target)

    def rests_at(self, goal: int) -> int:
        """Return the units at which it comes to rest on its way to ``goal``.

        A right driver never splits a page, so it rounds up to its own.
        """
        if self.encoding in _WHOLE_PAGES and self.scale == 1:
            return -(-goal // self.page) * self.page
        return goal

    @property
    def counts_guest_pages(self) -> bool:
        """Whether its numbers and units are of guest pages: Linux before 3.4."""
        return self.encoding in (Encoding.UNSHIFTED, Encoding.SHIFTED)

    def units(self, entries: int) -> int:
        """Return how many of its units are in a balloon of ``entries`` entries."""
        return entries // self.entries_per_unit

    @property
    def least(self) -> int:
        """The smallest balloon that it can have, in its units."""
        return max(1, self.page // self.scale)

    def writes(self, units: int) -> int:
        """Return what it writes to ``actual`` with ``units`` in its balloon."""
        return swap32(units & 0xFFFFFFFF) if self.swaps_actual else units


_WHOLE_PAGES = (Encoding.RIGHT, Encoding.SWAPPED)
_BIG, _LITTLE = ByteOrder.BIG, ByteOrder.LITTLE

FOUR_K: Final = (
    # v2.6.25 computes the difference to its target unsigned; so does v2.6.26, which
    # reads the target raw besides (72e61eb40b55; the difference: 532a6086e353).
    DriverKind(
        "Linux 2.6.25",
        (Defect.NO_DEFLATE,),
        deflates=False,
        version_1=False,
        indirect=False,
    ),
    DriverKind(
        "Linux 2.6.26, big-endian",
        (Defect.ENDIAN_TARGET, Defect.NO_DEFLATE),
        swaps_target=True,
        deflates=False,
        version_1=False,
        indirect=False,
        byte_order=_BIG,
    ),
    DriverKind(
        "Linux 2.6.27 to 3.3, big-endian",
        (Defect.ENDIAN_TARGET,),
        swaps_target=True,
        version_1=False,
        byte_order=_BIG,
    ),
)
"""Old kinds on 4 KiB pages, where their error with larger pages does not show."""

ANY_PAGE: Final = (
    DriverKind("a driver that is right", compacts=True),
    # 3.19 and 4.0 convert twice where the transport has converted already.
    DriverKind(
        "Linux 3.19 or 4.0, big-endian with VERSION_1",
        (Defect.ENDIAN_TARGET, Defect.ACTUAL_ORDER, Defect.PFN_ORDER),
        encoding=Encoding.SWAPPED,
        swaps_target=True,
        swaps_actual=True,
        compacts=True,
        version_1=True,
        byte_order=_BIG,
    ),
    # until 87c9403b0d1d, v4.7
    DriverKind(
        "Linux 4.1 to 4.6, big-endian with VERSION_1",
        (Defect.PFN_ORDER,),
        encoding=Encoding.SWAPPED,
        compacts=True,
        version_1=True,
        byte_order=_BIG,
    ),
    # OpenBSD's and NetBSD's viomb writes actual as the CPU has it (second-hand).
    DriverKind(
        "viomb of OpenBSD or NetBSD, big-endian",
        (Defect.ACTUAL_ORDER,),
        swaps_actual=True,
        byte_order=_BIG,
    ),
)
"""Kinds that exist with every size of pages."""

_GUEST_PAGES = DriverKind("", version_1=False)
_SHIFTED = replace(
    _GUEST_PAGES,
    name="Linux 2.6.29 to 3.3",
    defects=(Defect.PAGE_SHIFT,),
    encoding=Encoding.SHIFTED,
    frees_wrong=True,
)
_UNSHIFTED = replace(
    _GUEST_PAGES,
    name="Linux 2.6.27 or 2.6.28",
    defects=(Defect.PAGE_UNITS,),
    encoding=Encoding.UNSHIFTED,
    indirect=False,
)

LARGE_PAGE: Final = (
    # 1b4aa2faeca1, v2.6.29-rc1, until 3ccc9372ed0f, v3.4
    replace(_SHIFTED, byte_order=_LITTLE),
    replace(
        _SHIFTED,
        name="Linux 2.6.29 to 3.3, big-endian",
        defects=(Defect.ENDIAN_TARGET, Defect.PAGE_SHIFT),
        swaps_target=True,
        byte_order=_BIG,
    ),
    replace(_UNSHIFTED, byte_order=_LITTLE),
    replace(
        _UNSHIFTED,
        name="Linux 2.6.27 or 2.6.28, big-endian",
        defects=(Defect.ENDIAN_TARGET, Defect.PAGE_UNITS),
        swaps_target=True,
        byte_order=_BIG,
    ),
    replace(
        _UNSHIFTED,
        name="Linux 2.6.25 or 2.6.26",
        defects=(Defect.PAGE_UNITS, Defect.NO_DEFLATE),
        deflates=False,
    ),
    replace(
        _UNSHIFTED,
        name="Linux 2.6.26, big-endian",
        defects=(Defect.ENDIAN_TARGET, Defect.PAGE_UNITS, Defect.NO_DEFLATE),
        swaps_target=True,
        deflates=False,
        byte_order=_BIG,
    ),
)
"""Kinds that count in guest pages, and are wrong only where these exceed 4 KiB."""

FIXED_PAGE: Final = (
    # Windows x64 writes each page number into 8 bytes (virtio-win).
    DriverKind(
        "Windows, 64-bit",
        (Defect.PFN_WIDTH,),
        encoding=Encoding.SLOTS,
        entries_per_unit=2,
        byte_order=_LITTLE,
    ),
    # virtio_enqueue() sends all of viomb's DMA map, however much of it is new.
    DriverKind(
        "NetBSD",
        (Defect.STALE_ENTRIES,),
        stale=True,
        version_1=False,
        byte_order=_LITTLE,
    ),
    # AppleVirtIOBalloon counts 4 KiB pages and moves as many of 16 (second-hand).
    DriverKind(
        "macOS",
        (Defect.UNIT_SCALE, Defect.NO_ACTUAL),
        page=4,
        stride=4,
        writes_actual=False,
        version_1=True,
        byte_order=_LITTLE,
    ),
)
"""Kinds that exist with one size of pages."""


@lru_cache(256)
def kinds(facts: GuestFacts, features: int | None) -> tuple[DriverKind, ...]:
    """Return the kinds that can be what runs in a guest.

    Right drivers come first, and then those that read their target right: shown the
    same small number the others see an enormous one, and tell themselves apart by what
    they take, while to show it swapped to a driver that reads it right has no end. Of
    either, those that deflate come first: they may be asked to.

    :param facts: what the host knows.
    :param features: the accepted bits, ``None`` if not known yet.
    """
    pages = _pages(facts)
    every = [_sized(kind, page) for kind in ANY_PAGE for page in pages]
    every += FOUR_K
    every += [_sized(kind, page) for kind in LARGE_PAGE for page in pages if page > 1]
    every += FIXED_PAGE
    possible = (kind for kind in every if _possible(kind, facts, features))
    return tuple(sorted(possible, key=_rank))


@cache  # 19 sizes at most, of each kind
def _sized(kind: DriverKind, page: int) -> DriverKind:
    """Return a kind with another size of pages."""
    # What counts guest pages in its numbers does so in its units.
    return replace(kind, page=page, scale=page if kind.counts_guest_pages else 1)


def _rank(kind: DriverKind) -> tuple[bool, bool, bool]:
    return bool(kind.defects), kind.swaps_target, not kind.deflates


def _pages(facts: GuestFacts) -> tuple[int, ...]:
    """Return the sizes that the guest's pages may have; the host's word, if it can be.

    That may be a size that no Linux has had yet.
    """
    size = facts.page_size
    if size is None or not PAGE_SIZE <= size <= LARGEST_PAGE or size & (size - 1):
        return PAGES
    return (size // PAGE_SIZE,)


def _possible(kind: DriverKind, facts: GuestFacts, features: int | None) -> bool:
    bits = (
        (kind.version_1, Feature.VIRTIO_F_VERSION_1),
        (kind.indirect, Feature.VIRTIO_RING_F_INDIRECT_DESC),
    )
    pages = _pages(facts)
    return (
        kind.page in pages
        and (len(pages) == 1 or not _exotic(kind))
        and (facts.byte_order is None or kind.byte_order in (None, facts.byte_order))
        and (
            features is None
            or all(has is None or has == bool(features & bit.mask) for has, bit in bits)
        )
    )


def _exotic(kind: DriverKind) -> bool:
    """Return whether the kind is one that is not worth suspecting without a reason."""
    return kind.counts_guest_pages and kind.page not in OLD_LARGE_PAGES
