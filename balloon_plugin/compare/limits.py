"""What no policy can do better, each with the proof.

A policy sees events and nothing else. So where two guests, of which one is safe and the
other is not, show the same events, no policy is right about both; and where the only
events that tell them apart cost what is to be spared, none is harmless. These are facts
about guests in circumstances, not about a policy: each is counted for all alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from balloon_plugin.compare.circumstance import Act, Circumstance
from balloon_plugin.compare.circumstances import find as find_circumstance
from balloon_plugin.compare.runner import Row
from balloon_plugin.guests.profiles import find as find_guest
from balloon_plugin.guests.traits import GuestProfile, Lie, PfnForm
from balloon_plugin.layouts import PAGE_SIZE, Feature

__all__ = ["LIMITS", "Limit", "limit"]


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that nobody can do better.

    :ivar name: what it is called.
    :ivar heads: the ways to fail that it concerns, as ``tally`` names them.
    :ivar holds: whether it holds for a guest in a circumstance.
    :ivar proof: why, for people.
    """

    name: str
    heads: frozenset[str]
    holds: Callable[[GuestProfile, Circumstance], bool]
    proof: str


def _lies_perfectly(guest: GuestProfile, _circumstance: Circumstance) -> bool:
    return guest.driver.lie is Lie.PERFECT


def _frees_wrong(guest: GuestProfile, circumstance: Circumstance) -> bool:
    leaves = {Act.MODULE_RELOAD, Act.HIBERNATION} & circumstance.needs
    frees = guest.driver.frees_by_wire and guest.page_size > PAGE_SIZE
    return frees and bool(leaves)


def _counts_unshifted(guest: GuestProfile, circumstance: Circumstance) -> bool:
    unshifted = guest.driver.pfn_form is PfnForm.UNSHIFTED
    large = guest.page_size > PAGE_SIZE
    return unshifted and large and _is_in_the_dark(guest, circumstance)


def _looks_unshifted(guest: GuestProfile, circumstance: Circumstance) -> bool:
    old = not guest.driver.features & Feature.VIRTIO_RING_F_INDIRECT_DESC.mask
    aligned = circumstance.conditions.queue_align > PAGE_SIZE
    return old and aligned and _is_in_the_dark(guest, circumstance)


def _is_in_the_dark(guest: GuestProfile, circumstance: Circumstance) -> bool:
    """Return whether nothing from outside tells small page numbers from right ones."""
    site = circumstance.site
    start = guest.ram_start if site.ram_start is None else site.ram_start
    return not (site.tells_page_size or start)


LIMITS: Final = (
    Limit(
        "perfect liar",
        frozenset(("harmed", "false GOOD")),
        _lies_perfectly,
        "It does all that an honest driver does, until it names pages that it is "
        "using. Every event before that is an honest driver's, and so is every number "
        "that it sends: different ones, inside RAM, and the same on their way back. It "
        "harms nobody but itself.",
    ),
    Limit(
        "unloaded after the test",
        frozenset(("harmed",)),
        _frees_wrong,
        "Linux 2.6.29 to 3.3 with large pages accepts the features of 3.4 and does as "
        "3.4 does until its first buffer. Whoever gives 3.4 a balloon asks both for "
        "pages. The old one then frees wrong pages for those that it took, whenever it "
        "is removed or the guest hibernates, and no target keeps it from that.",
    ),
    Limit(
        "unshifted numbers in the dark",
        frozenset(("unusable",)),
        _counts_unshifted,
        "Linux 2.6.27 and 2.6.28 with 64 KiB pages send the guest's own page numbers, "
        "all below a sixteenth of RAM. For each set of them there is a right driver of "
        "4 KiB pages whose queues happen to lie at multiples of 64 KiB and whose free "
        "pages have just these numbers, as long as they fit in that sixteenth; and "
        "they fit until the first guest has given all its memory. To take other pages "
        "than the driver means would be harm, so none is taken. The host's word on the "
        "page size, or RAM that does not begin at 0, tells the two apart.",
    ),
    Limit(
        "right numbers that look unshifted",
        frozenset(("false BUGGY", "unusable")),
        _looks_unshifted,
        "The other guest of the same pair: a right driver that accepts no "
        "INDIRECT_DESC (OpenBSD, Linux before 2.6.31), whose queues happen to lie at "
        "multiples of 64 KiB, one guest in 256, and whose first free pages all lie in "
        "the lowest part of RAM.",
    ),
)
"""All of them."""


def limit(row: Row, head: str) -> Limit | None:
    """Return what makes a failure unavoidable, or ``None``.

    :param head: the way to fail, as ``tally`` names it.
    """
    circumstance = find_circumstance(row.circumstance)
    guests = [find_guest(name) for name in dict.fromkeys((row.guest, row.judged))]
    for each in LIMITS:
        if head in each.heads and any(each.holds(one, circumstance) for one in guests):
            return each
    return None
