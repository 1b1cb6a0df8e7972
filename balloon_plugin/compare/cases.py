"""Which circumstances make sense for which guests: all that the matrix runs.

Every guest sees those of the first table. What happens in the middle of a run, at every
moment, multiplies; so one guest of each kind stands for the others of its kind.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from balloon_plugin.compare.circumstance import Stop
from balloon_plugin.guests.profiles import GUESTS, find
from balloon_plugin.guests.traits import Engine, GuestProfile
from balloon_plugin.layouts import Feature

__all__ = ["Case", "cases"]


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """One guest in one circumstance, by their names."""

    guest: str
    circumstance: str


FOR_ALL: Final = (
    "usual",
    "low-memory-0",
    "low-memory-1",
    "low-memory-10",
    "low-memory-17",
    "scattered",
    "contiguous",
    "host-64k",
    "host-knows-page-size",
    "host-knows-nothing",
    "unaligned-target",
)
"""What every guest is put through."""

FOR_KINDS: Final = (
    "low-memory-16",
    "low-memory-200",
    "low-memory-1+scattered",
    "low-memory-17+scattered-2",
    "scattered-2",
    "scattered+host-64k",
    "scattered+ram-1g",
    "contiguous+ram-1g",
    "aligned-queues",
    "aligned-queues+contiguous",
    "host-knows-nothing+scattered",
    "held-kicks",
    "whole-config",
    "whole-config+low-memory-10",
    "interrupt-in-looking",
    "interrupt-in-reported",
    "interrupt-in-growing",
    "interrupt-in-full",
)
"""What one guest of each kind is put through besides."""

KINDS: Final = (
    "linux-2.6.25-le-4k",
    "linux-2.6.27-le-64k",
    "linux-2.6.27-be-64k",
    "linux-3.3-le-4k",
    "linux-3.3-le-64k",
    "linux-3.3-be-4k",
    "linux-3.3-be-64k",
    "linux-3.4-be-4k",
    "linux-3.4-be-256k",
    "linux-3.16-be-64k",
    "linux-4.0-v1-be-64k",
    "linux-4.4-v1-be-4k",
    "linux-4.6-be-4k",
    "linux-4.6-v1-be-64k",
    "linux-5.8-v1-be-4k",
    "linux-6.1-le-64k",
    "linux-6.12-le-4k",
    "windows-le-4k",
    "freebsd-be-4k",
    "openbsd-le-4k",
    "viomb-be-4k",
    "netbsd-le-4k",
    "macos-le-16k",
    "liar-be-4k",
)
"""One guest of each kind."""

AT_EVERY_MOMENT: Final = ("module-reload", "save-restore", "retarget")
"""What can happen at every moment to every guest."""

_OTHER_GUESTS: Final = (
    "linux-2.6.27-be-64k",
    "linux-3.3-be-4k",
    "linux-3.3-be-64k",
    "linux-3.4-be-64k",
    "linux-3.3-le-4k",
    "linux-3.3-le-64k",
    "windows-le-4k",
    "windows-v1-le-4k",
    "linux-4.0-v1-be-64k",
    "linux-4.4-v1-be-64k",
    "linux-6.1-v1-be-64k",
    "linux-6.12-le-4k",
)
"""Who may take over."""


def cases(
    guests: Sequence[str] | None = None, circumstances: Sequence[str] | None = None
) -> Iterator[Case]:
    """Yield every case that makes sense.

    :param guests: names of guests; ``None`` for all.
    :param circumstances: names of circumstances instead, whether they make sense or
        not.
    :raises HostError: if there is no guest of that name.
    """
    for guest in map(find, guests or GUESTS):
        for name in circumstances or _names(guest):
            yield Case(guest.name, name)


def _names(guest: GuestProfile) -> Iterator[str]:
    yield from FOR_ALL
    yield from _features(guest)
    if guest.modern:
        yield "byte-config"
    if guest.ram_start == 0:
        yield "ram-at-1g"
    if guest.name in KINDS:
        yield from FOR_KINDS
        yield from _bus(guest)
        yield from _moments(guest)
        yield from _successors(guest)


def _features(guest: GuestProfile) -> Iterator[str]:
    """Yield what depends on the features that the driver knows."""
    known = guest.driver.features
    if guest.driver.engine is not Engine.ABSENT:
        yield "all-features"
    if known & Feature.VIRTIO_BALLOON_F_PAGE_POISON.mask:
        yield "page-poison"
    if known & Feature.VIRTIO_BALLOON_F_STATS_VQ.mask:
        yield "stats-polling"
    if known & Feature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM.mask:
        yield "oom-deflate"


def _bus(guest: GuestProfile) -> Iterator[str]:
    if not guest.modern:
        yield "word-config"
    yield "s390-bytes-0-to-7"


def _moments(guest: GuestProfile) -> Iterator[str]:
    """Yield what can happen in the middle of a run, at each moment."""
    driver = guest.driver
    acts = [*AT_EVERY_MOMENT]
    if not driver.removable:
        acts.remove("module-reload")
    if driver.has_freeze:
        acts.append("hibernation")
    if driver.compacts:
        acts.append("compaction")
    if driver.features & Feature.VIRTIO_BALLOON_F_STATS_VQ.mask:
        acts.append("stats")
    if driver.features & Feature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM.mask:
        acts.append("oom")
    for act, stop in itertools.product(acts, Stop):
        yield f"{act}-in-{stop.text}"


def _successors(guest: GuestProfile) -> Iterator[str]:
    """Yield the boots of other guests, and back again, that the machine allows."""
    for name in _OTHER_GUESTS:
        other = GUESTS[name]
        alike = (guest.byte_order, guest.modern) == (other.byte_order, other.modern)
        if alike and other is not guest:
            yield f"kexec-into:{name}"
            yield f"kexec-into:{name}-in-inflating"
            yield f"kexec-into:{name}+kexec-into:{guest.name}"
            yield f"reboot-into:{name}-in-idle"
            yield f"reboot-into:{name}+reboot-into:{guest.name}"
