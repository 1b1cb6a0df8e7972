"""Real kernels whose memory is on huge pages of the host (hugetlb).

What the device says is compared with the kernel's pool of huge pages, and the guest
finds in its memory what it wrote. Each machine lives once.
"""

from __future__ import annotations

import contextlib
import time
from types import SimpleNamespace

import pytest
from huge_pages import HUGE, PIECES, free, pool_of
from real_guests import MEBIBYTE, MEMORY, Life, find_tools, options_for

from balloon_plugin.boot.plan import Plan
from balloon_plugin.boot.qemu import Qemu, Transport, find_qemu
from balloon_plugin.boot.stage import Stage
from balloon_plugin.boot.talk import Talk
from balloon_plugin.events import Answer
from balloon_plugin.features import DeviceOptions

pytestmark = [pytest.mark.real, pytest.mark.slow]

USED = 140
"""MiB that the guest writes to and frees, before its driver comes."""

KEPT = 16
"""MiB that it holds all the time."""

TARGET = 96
"""MiB for the balloon."""

NEEDED = 80
"""MiB that the guest takes when the balloon is empty again."""

SCATTERED = 48
"""MiB that go into the balloon one by one, while the guest takes those in between."""

WORTH = 56 * MEBIBYTE
"""Bytes that have to come back, at the least. Seen were 72 and more."""

PATIENCE = 60.0
"""Seconds for a whole life on a busy machine; alone it takes 3."""

LIVES = {
    "little-endian, 4K pages, modern": ("arm64le-4k", Transport.MODERN),
    "big-endian, 64K pages, legacy": ("arm64be-64k", Transport.LEGACY),
}

USUAL = next(iter(LIVES))


class OnHugePages(Qemu):
    """A QEMU whose guest's memory is on huge pages."""

    def prepare(self, folder, socket, memory):
        return tuple(
            f"{word},hugetlb=on,hugetlbsize=2M"
            if "memory-backend-memfd" in word
            else word
            for word in super().prepare(folder, socket, memory)
        )


@pytest.fixture(scope="module")
def live(require_real):
    """Let a guest live, by its chapters: ``live(name, chapters, options)``."""
    tools = require_real(find_tools)
    with contextlib.ExitStack() as stack:
        require_real(lambda: stack.enter_context(pool_of(MEMORY * MEBIBYTE // HUGE)))

        def live(name, chapters, **options):
            guest, transport = LIVES[name]
            found = find_qemu(options_for(Life(guest, transport=transport), tools))
            machine = OnHugePages(found.emulator, found.options, found.board)
            plan = Plan(
                "evidence",
                target=1,
                memory=MEMORY * MEBIBYTE,
                timeout=PATIENCE,
                options=DeviceOptions(**options),
            )
            with Stage(machine, plan) as stage:
                talk = Talk(stage, plan, lambda _: None, time.monotonic())
                return chapters(_Chapters(machine, talk))

        yield live


class _Chapters:
    """What can happen in a life."""

    def __init__(self, machine, talk):
        self._machine = machine
        self.talk = talk

    def begin(self):
        """Boot, use memory and free it, keep some, and load the driver."""
        talk = self.talk
        talk.wait(lambda: talk.view.booted, "not booted")
        for command in (*self._machine.use_memory(USED), f"alloc {KEPT}"):
            talk.ask(command)
        self.used = self.seen()
        talk.send(f"insmod {self._machine.driver}")
        talk.hear_report("insmod")
        self.until(lambda status: status.gate.targets is Answer.ACCEPTED)

    def resize(self, mebibytes):
        """Set a target, and wait until it is reached and all work is done."""
        pages = mebibytes * MEBIBYTE // 4096
        self.talk.device(lambda device: device.set_target(pages))
        self.until(lambda status: status.actual == status.ballooned == pages)
        return self.seen()

    def until(self, reached):
        """Wait until a query shows something."""
        self.talk.wait(lambda: reached(self.query()), "it is not to be seen")

    def query(self):
        return self.talk.device(lambda device: device.query())

    def seen(self):
        """Return what the device says, and what the host's kernel does."""
        return SimpleNamespace(status=self.query(), free=free())

    def end(self):
        self.talk.send("poweroff")
        self.talk.wait(lambda: self.talk.view.ended is not None, "not off")
        return self.talk.view.ended


@pytest.fixture(scope="module", params=LIVES)
def ballooned(request, live):
    """Give what was seen of a balloon that was filled and emptied."""

    def chapters(life):
        seen = SimpleNamespace()
        life.begin()
        seen.used = life.used
        seen.full = life.resize(TARGET)
        seen.smaller = life.resize(TARGET // 2 - 1)
        seen.empty = life.resize(0)
        seen.report = life.talk.ask(f"alloc {NEEDED}")
        seen.needy = life.seen()
        seen.ended = life.end()
        return seen

    before = free()
    seen = live(request.param, chapters, must_tell_host=True)
    seen.before, seen.after = before, free()
    tell(request.param, seen.used, seen.full, seen.smaller, seen.empty, seen.needy)
    return seen


def tell(name, *moments):
    """Print the figures of a life, for docs/real-guests.md (``-rP`` shows them)."""
    print(f"{name}: ballooned, given back, reported; huge pages free")  # noqa: T201
    for seen in moments:
        status = seen.status
        pages = status.ballooned, status.reclaimed, status.reported
        each = ", ".join(f"{count / PIECES * 2:g} MiB" for count in pages)
        print(f"{each}; {seen.free}")  # noqa: T201


def test_what_is_ballooned_goes_back_to_the_pool(ballooned):
    reclaimed = ballooned.full.status.reclaimed

    assert WORTH <= reclaimed * 4096 <= TARGET * MEBIBYTE
    assert reclaimed % PIECES == 0
    # Some of what is ballooned was never touched, and so not taken from the pool.
    risen = ballooned.full.free - ballooned.used.free
    assert WORTH // HUGE <= risen <= reclaimed // PIECES


def test_a_huge_page_counts_as_the_guests_again_with_its_first_piece(ballooned):
    status = ballooned.smaller.status

    assert 0 < status.reclaimed <= status.ballooned
    assert status.reclaimed % PIECES == 0
    assert ballooned.empty.status.reclaimed == 0


def test_the_guest_takes_from_the_pool_again_what_it_uses(ballooned):
    fallen = ballooned.empty.free - ballooned.needy.free

    assert fallen * HUGE >= WORTH / 2


def test_the_guest_finds_all_that_it_wrote(ballooned):
    report = ballooned.report

    assert report.kept * 4096 == (KEPT + NEEDED) * MEBIBYTE
    assert report.lost == 0
    assert ballooned.needy.status.faults == 0
    assert ballooned.ended == 0


def test_the_pool_is_whole_when_the_guest_has_gone(ballooned):
    assert ballooned.after == ballooned.before


def test_pieces_of_huge_pages_wait_for_the_rest(live):
    def chapters(life):
        life.begin()
        for mebibytes in range(1, SCATTERED + 1):
            scattered = life.resize(mebibytes)
            life.talk.ask("alloc 1")
        life.talk.ask("free")
        full = life.resize(TARGET)
        return scattered, full, life.talk.ask(f"alloc {NEEDED // 2}")

    scattered, full, report = live(USUAL, chapters, must_tell_host=True)

    tell("scattered", scattered, full)
    assert scattered.status.reclaimed * 4096 < SCATTERED * MEBIBYTE / 2
    assert full.status.reclaimed > scattered.status.reclaimed
    assert (report.kept * 4096, report.lost) == (NEEDED // 2 * MEBIBYTE, 0)


def test_whole_huge_pages_are_reported_and_go_back(live):
    def chapters(life):
        life.begin()
        life.until(lambda status: status.reported * 4096 >= WORTH)
        return life.used, life.seen(), life.talk.ask(f"alloc {NEEDED}")

    used, told, report = live(USUAL, chapters, reporting=True)

    tell("reported", used, told)
    assert told.free - used.free >= WORTH // HUGE
    assert told.status.ballooned == 0
    assert (report.kept * 4096, report.lost) == ((KEPT + NEEDED) * MEBIBYTE, 0)
