"""What can be different from one run of a guest to the next, as frozen values."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from balloon_plugin.guests.traits import Conditions
from balloon_plugin.layouts import PAGE_SIZE

__all__ = [
    "RETARGET",
    "TARGET",
    "USUAL",
    "Act",
    "Circumstance",
    "Moment",
    "Site",
    "Stop",
    "Turn",
]

TARGET: Final = 1024
"""Pages of the balloon that the user asks for (4 MiB): of every page size a multiple,
and four batches of a driver with pages of 4 KiB."""

RETARGET: Final = 512
"""Pages that the user asks for in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the machine and its host are like.

    :ivar ram_size: bytes of RAM; the default is four times what a 64K guest gives by
        mistake.
    :ivar ram_start: where RAM begins, if not where the guest's profile says.
    :ivar legacy: whether the bus has no VERSION_1, though the guest knows it.
    :ivar host_page_size: bytes that the host can give back at the least.
    :ivar tells_byte_order: whether the device is told the guest's byte order. QEMU
        knows it from the machine that it emulates.
    :ivar tells_page_size: whether it is told the size of pages, which no host knows
        unless its user does.
    :ivar holds_early_kicks: whether kicks before DRIVER_OK wait for it.
    :ivar features: bits that are offered besides the device's own.
    :ivar polls_stats: whether the host asks for statistics every second.
    """

    ram_size: int = 64 << 20
    ram_start: int | None = None
    legacy: bool = False
    host_page_size: int = PAGE_SIZE
    tells_byte_order: bool = True
    tells_page_size: bool = False
    holds_early_kicks: bool = False
    features: int = 0
    polls_stats: bool = False


class Stop(enum.Enum):
    """A moment in a run, whatever the policy calls the state that it is in then.

    The first six are of the time before the user asks for a balloon. One that does not
    come, because a policy shows no target that early, is made up for at the end of its
    phase.
    """

    NEGOTIATED = "features were accepted"
    LOOKING = "the target was read for the first time"
    INFLATING = "a first inflate buffer was sent"
    REPORTED = "actual was written for the first time"
    DEFLATING = "a first deflate buffer was sent"
    IDLE = "nothing moves any more, and the user has asked for nothing"
    GROWING = "a buffer was sent towards the user's target"
    FULL = "nothing moves any more, after the user asked for a balloon"
    SHRINKING = "a buffer was given back after the user asked for all of it"
    EMPTY = "nothing moves any more, at the end"

    @property
    def text(self) -> str:
        """What it is called in the name of a circumstance."""
        return self.name.lower()


Moment: TypeAlias = Stop | int
"""When: a named moment, or after so many steps of the guest."""


class Act(enum.Enum):
    """What can happen in the middle of a run."""

    MODULE_RELOAD = "the driver is removed and loaded again"
    SAVE_RESTORE = "the device is saved, and another one goes on (migration)"
    RETARGET = f"the user asks for {RETARGET} pages instead"
    STATS = "the host asks for statistics"
    OOM = "the guest is short of memory and deflates by itself"
    COMPACTION = "the kernel moves pages that are in the balloon"
    HIBERNATION = "the guest hibernates and comes back"
    INTERRUPT = "a config interrupt comes for nothing"
    REBOOT = "the machine is reset and boots another kernel"
    KEXEC = "the kernel jumps into another one"


@dataclass(frozen=True, slots=True)
class Turn:
    """Something that happens in the middle of a run.

    :ivar act: what.
    :ivar moment: when.
    :ivar guest: the name of the guest that takes over.
    """

    act: Act
    moment: Moment
    guest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstance:
    """All that is special about one run.

    :ivar name: what people call it by; ``balloon_plugin.compare.circumstances.find``
        gives it back.
    :ivar conditions: of the guest's boot.
    :ivar site: of its machine and host.
    :ivar target: what the user asks for, in pages.
    :ivar turns: what happens in the middle. One that boots another guest is waited for
        before those behind it.
    :ivar hopeless: why no balloon can come to its target, or nothing.
    """

    name: str = "usual"
    conditions: Conditions = field(default_factory=Conditions)
    site: Site = field(default_factory=Site)
    target: int = TARGET
    turns: tuple[Turn, ...] = ()
    hopeless: str = ""

    @property
    def needs(self) -> frozenset[Act]:
        """What happens in it."""
        return frozenset(turn.act for turn in self.turns)


USUAL: Final = Circumstance()
"""A guest boots, and nothing special happens."""
