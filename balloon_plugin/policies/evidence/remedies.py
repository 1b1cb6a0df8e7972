"""What can be done about each kind of driver, as far as the user wants it done.

Pure: a kind goes in; what to show it, how to read it, and what that is called come out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from balloon_plugin.events import Translation
from balloon_plugin.policies.evidence.drivers import DriverKind
from balloon_plugin.policies.evidence.numbers import Encoding

__all__ = ["Remedies", "numbering", "remedy", "translation"]


@dataclass(frozen=True, slots=True)
class Remedies:
    """The remedies that are switched on; what each does is told by :meth:`acts`."""

    hold: bool = True
    swap: bool = True
    translate: bool = True
    align: bool = True

    def lacking(self, kind: DriverKind) -> list[str]:
        """Return the options that are off, and without which its balloon is no use."""
        as_it_is = translation(kind) == Translation()
        translates = kind.stride > 1 or kind.stale or not as_it_is
        needed = {
            "swap": kind.swaps_target and not self.swap,
            "translate": translates and not self.translate,
        }
        return [option for option, lacks in needed.items() if lacks]

    def units(self, kind: DriverKind, pages: int, ram_pages: int) -> int:
        """Return a target in the driver's units, rounded up to its page.

        Drivers before Linux 6.7 never come to rest at a target between two pages.

        :param ram_pages: what the guest has, 0 if that is not known.
        """
        if self.align:
            whole = -(-pages // kind.page) * kind.page
            # More than there is it cannot reach, if it is known how much there is.
            pages = min(whole, ram_pages or whole)
        return -(-pages // kind.scale)

    def acts(self, kind: DriverKind) -> list[tuple[str, str]]:
        """Return what is done about a kind whose balloon is open, in words."""
        acts = []
        if kind.swaps_target:
            acts.append(("swap", "Its target is shown in the other byte order."))
        if translation(kind) != Translation():
            acts.append(("translate", "Its numbers and units are put right."))
        if kind.stride > 1:
            leaps = f"It moves {kind.stride} pages where it counts one"
            acts.append(("translate", f"{leaps}: its target is shown in parts."))
        if kind.stale:
            acts.append(("translate", "Only the new entries of its buffers count."))
        if kind.page > kind.scale and self.align:
            whole = f"whole pages of {kind.page * 4} KiB"
            acts.append(("align", f"Its targets are rounded up to {whole}."))
        return acts

    def holding(self) -> tuple[str, str]:
        """Return what is done about a driver that must not move, in words."""
        if self.hold:
            return "hold", "It is shown the size that it has: nothing to do."
        return "hold=no", "It is shown 0."


@cache  # asked for at every event, and there are few kinds
def translation(kind: DriverKind) -> Translation:
    """Return how to read the numbers and units of a kind."""
    return Translation(
        swap_pfns=kind.encoding is Encoding.SWAPPED,
        slot_entries=2 if kind.encoding is Encoding.SLOTS else 1,
        pages_per_pfn=kind.page if kind.encoding is Encoding.UNSHIFTED else 1,
        swap_actual=kind.swaps_actual,
        pages_per_unit=kind.scale,
    )


def numbering(kind: DriverKind) -> tuple[Encoding, int]:
    """Return what decides which pages the numbers of a kind stand for."""
    return kind.encoding, kind.page if kind.counts_guest_pages else 1


def remedy(kind: DriverKind) -> tuple[object, ...]:
    """Return all in which the treatment of one kind differs from another's."""
    return numbering(kind), kind.swaps_target, kind.scale, kind.stride, kind.stale
