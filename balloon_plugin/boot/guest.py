"""What a guest is to the story: how to start one, what it says, what it can be told.

Knows the language of the console and no process. Any guest can be booted whose init
speaks that language: a line for each command, and lines that begin with ``GUEST`` for
all that it has to say. Everything else on the console is its kernel's. ::

    GUEST ready up=1.52
    GUEST up=1.60 MemTotal=493612 MemFree=476408 MemAvailable=472392 infl=0/0
    GUEST alloc 8 ok
    GUEST up=1.71 MemTotal=493612 MemFree=468100 ... infl=0/0 check=2048/0

It is ``ready`` once it obeys. An answer begins with the command. The numbers follow
every answer, and may come at any other time: kB of memory, the pages that the balloon
driver took and gave back since boot and, while memory is held by ``alloc``, the 4 KiB
pieces of it that kept and that lost their content.

=============================  =======================================================
``insmod NAME [PARAM=N ...]``  load a driver: ``insmod NAME "PARAM=N ..." -> 0``, or a
                               number of an error, then the answer to ``device``
``rmmod NAME``                 remove it: ``rmmod NAME -> 0``, likewise
``device``                     ``virtio0 driver=NAME``, or ``-`` if there is none
``alloc MIB``                  take memory, and give it a content that is checked with
                               each line of numbers: ``alloc MIB ok``, or ``failed``
``free``                       give back all that was taken: ``free ok``
``reboot``, ``poweroff``       answer, and do so
=============================  =======================================================

Guests may know more commands. User-Mode Linux is one machine, QEMU another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from balloon_plugin.events import ByteOrder, Event

__all__ = [
    "Broken",
    "Ended",
    "GuestReport",
    "Happening",
    "Heard",
    "Machine",
    "Seen",
    "find_trouble",
    "parse_report",
]


class Machine(Protocol):
    """A kind of guest that can be booted.

    ``title`` names it for a person; the byte order and the page size are those of its
    kernel, where they are known. ``driver`` is what its ``insmod`` is to load.
    """

    @property
    def title(self) -> str:
        """A name for a person."""

    @property
    def byte_order(self) -> ByteOrder | None:
        """Byte order of its CPU, if known."""

    @property
    def page_size(self) -> int | None:
        """Bytes in its kernel's page, if known."""

    @property
    def driver(self) -> str:
        """The balloon driver's module and its parameters."""

    def prepare(self, folder: Path, socket: str, memory: int) -> tuple[str, ...]:
        """Write what is needed into ``folder`` and return the command line.

        The program is started in the folder, so that paths can be relative to that. Its
        memory has to be a file without a name, which it holds open.

        :param folder: private, and empty but for the socket.
        :param socket: name of the balloon's socket in it.
        :param memory: bytes of RAM.
        :raises HostError: if such a guest cannot be started on this machine.
        """

    def use_memory(self, mebibytes: int) -> tuple[str, ...]:
        """Return console commands that write to so much memory.

        All that is held may be given back by them.
        """


# --- what happens, from all sides, each with its time on the monotonic clock --------


@dataclass(frozen=True, slots=True)
class Heard:
    """The guest printed a line."""

    at: float
    line: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The guest's process is gone, and all that it started.

    :ivar status: its exit status, negative for a signal; 0 if its kernel had halted.
    """

    at: float
    status: int


@dataclass(frozen=True, slots=True)
class Seen:
    """The device told its observers."""

    at: float
    event: Event


@dataclass(frozen=True, slots=True)
class Broken:
    """The daemon's thread ended with an exception: our own bug."""

    at: float
    error: BaseException


Happening: TypeAlias = Heard | Ended | Seen | Broken
"""Anything that happens while a guest runs."""


# --- the console --------------------------------------------------------------------

_STAMP: Final = re.compile(r"^\[ *\d+\.\d+\] ?")
_PANIC: Final = re.compile(r"Kernel panic")
_OOPS: Final = re.compile(
    r"Oops: |kernel BUG at |BUG: |Unable to handle kernel |Internal error: "
)


def find_trouble(line: str) -> str | None:
    """Return what befell the guest's kernel, if that is what a line of it says.

    After an oops a guest may live on, but not as it should: whatever the code was at is
    left as it stands, locks included.
    """
    if line.startswith("GUEST "):
        return None
    for pattern, what in ((_PANIC, "panicked"), (_OOPS, "oopsed")):
        if pattern.search(line):
            return f"the guest's kernel {what}: {_STAMP.sub('', line)}"
    return None


_NUMBERS: Final = re.compile(r"(\w+)=(\d+)(?:/(\d+))?")


@dataclass(frozen=True, slots=True)
class GuestReport:
    """The line that follows every command.

    :ivar total: bytes of memory that the kernel manages.
    :ivar free: bytes of it that nobody uses.
    :ivar inflated: pages that the driver took since boot.
    :ivar deflated: pages that it gave back.
    :ivar kept: 4 KiB pieces of used memory with their content.
    :ivar lost: pieces without.
    """

    total: int
    free: int
    inflated: int
    deflated: int
    kept: int = 0
    lost: int = 0


def parse_report(line: str) -> GuestReport | None:
    """Read the guest's report, or return ``None`` if the line is another one."""
    if not line.startswith("GUEST up="):
        return None
    found = {
        key: (int(first), int(second or 0))
        for key, first, second in _NUMBERS.findall(line)
    }
    try:
        return GuestReport(
            found["MemTotal"][0] * 1024,
            found["MemFree"][0] * 1024,
            *found["infl"],
            *found.get("check", (0, 0)),
        )
    except KeyError:
        return None  # two lines run into each other; another report will come
