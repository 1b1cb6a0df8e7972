"""The values of a boot: what is asked for, what is told on the way, how it ended.

Knows no process, socket or clock.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from balloon_plugin.errors import HostError
from balloon_plugin.features import DeviceOptions
from balloon_plugin.layouts import PAGE_SIZE

__all__ = ["Ending", "Kind", "Plan", "Report", "Result", "Step", "amount", "pages"]

MEBIBYTE: Final = 1 << 20

ROOM: Final = 96 * MEBIBYTE
"""Bytes that the guest keeps for itself: its kernel, its program, and some to spare."""

_EXACT_BELOW: Final = 10.0
"""MiB from which a decimal says nothing to a person."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with the guest.

    :ivar policy: the policy with its options (``probe:pages=16``).
    :ivar target: pages that are to be in the balloon.
    :ivar memory: bytes of RAM that the guest gets.
    :ivar timeout: seconds that the whole story may take.
    :ivar options: which features the balloon offers.
    :ivar record: where to write a trace of the device, if anywhere.
    """

    policy: str
    target: int = 128 * MEBIBYTE // PAGE_SIZE
    memory: int = 512 * MEBIBYTE
    timeout: float = 60.0
    options: DeviceOptions = field(default_factory=DeviceOptions)
    record: Path | None = None

    def __post_init__(self) -> None:
        wanted = self.target * PAGE_SIZE
        if self.target < 1:
            raise HostError("the target must be at least one page of 4 KiB")
        if self.timeout <= 0:
            raise HostError("the timeout must be more than 0 seconds")
        if self.memory < wanted + ROOM:
            raise HostError(
                f"a balloon of {amount(wanted)} leaves too little of "
                f"{amount(self.memory)}: give the guest at least "
                f"{amount(wanted + ROOM)}"
            )


class Kind(enum.Enum):
    """Whom a step is about, or how it went."""

    HOST = "host"
    GUEST = "guest"
    POLICY = "policy"
    BALLOON = "balloon"
    PROBLEM = "problem"
    WAITING = "waiting"
    """Not a step but a sign of life while one waits, to be replaced by what follows."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the story, for a person.

    :ivar at: seconds since the start.
    :ivar kind: whom it is about.
    :ivar text: a sentence without its full stop, in one line.
    """

    at: float
    kind: Kind
    text: str


Report: TypeAlias = Callable[[Step], None]
"""Called with each step as it happens, always from the thread that called ``boot``."""


class Ending(enum.Enum):
    """How the story ended.

    A refusal is an answer, and the right one for many a guest: whoever asked sees it
    with its reason, and nothing was taken from the guest. So it is no failure.
    """

    REACHED = "reached"
    """The target was reached and the balloon emptied again."""

    REFUSED = "refused"
    """The policy does not believe the driver, and no page was reclaimed."""

    FAILED = "failed"
    """Neither: the guest died, lost memory, or did not get there in time."""

    @property
    def exit_code(self) -> int:
        """What a shell should see."""
        return 1 if self is Ending.FAILED else 0


@dataclass(frozen=True, slots=True)
class Result:
    """What was seen and measured; ``None`` where it did not come to that.

    :ivar ending: how it ended.
    :ivar reason: why it was refused or failed.
    :ivar states: the policy's states, in order.
    :ivar reclaimed: pages given back to the host by the device's own count.
    :ivar held: bytes of host memory behind the guest's memory: before, with and after
        the balloon, by the blocks of the file that holds it.
    :ivar free: the guest's own ``MemFree`` in bytes at the same moments.
    :ivar parked: bytes of its memory that the guest's driver kept to the end.
    :ivar intact: whether the memory that the guest used all along kept its content.
    :ivar clean: whether the guest shut itself down in order.
    :ivar seconds: from start to end.
    """

    ending: Ending
    reason: str = ""
    states: tuple[str, ...] = ()
    reclaimed: int | None = None
    held: tuple[int, ...] = ()
    free: tuple[int, ...] = ()
    parked: int | None = None
    intact: bool | None = None
    clean: bool = False
    seconds: float = 0.0


def amount(size: int) -> str:
    """Show a number of bytes for a person; half a KiB more or less does not matter.

    >>> amount(128 << 20), amount(5 << 19), amount(16 << 12), amount(0)
    ('128 MiB', '2.5 MiB', '64 KiB', '0')
    """
    if size >= MEBIBYTE:
        value = size / MEBIBYTE
        digits = 0 if value.is_integer() or value >= _EXACT_BELOW else 1
        return f"{value:.{digits}f} MiB"
    return f"{size / 1024:.0f} KiB" if size else "0"


def pages(count: int) -> str:
    """Show a number of 4 KiB pages as an amount of memory."""
    return amount(count * PAGE_SIZE)
