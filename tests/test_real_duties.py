"""Statistics, reports, hints and deflation on OOM, with kernels that are real.

What the device was told is compared with what the guest itself prints, and what came
back with what the host's file of guest memory still holds. Each machine lives once.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from real_guests import Life, find_tools, options_for

from balloon_plugin.boot.plan import Plan
from balloon_plugin.boot.qemu import Transport, find_qemu
from balloon_plugin.boot.stage import Stage
from balloon_plugin.boot.talk import Talk
from balloon_plugin.boot.uml import find_uml
from balloon_plugin.events import PagesHinted, PagesReported
from balloon_plugin.features import DeviceOptions
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.layouts import StatTag

pytestmark = [pytest.mark.real, pytest.mark.slow]

MEBIBYTE = 1 << 20
MEMORY = 192
"""MiB of RAM."""

USED = 80
"""MiB that the guest writes to and frees, before its driver comes."""

TARGET = 80
"""MiB for the balloon, that a guest short of memory takes back."""

NEEDED = 112
"""MiB that the guest then needs, in pieces of 4; without the balloon it has 150."""

PATIENCE = 60.0
"""Seconds for a whole life on a busy machine; alone it takes 8."""

MACHINES = {
    "User-Mode Linux": ("", Transport.MODERN),
    "big-endian, 64K pages, legacy": ("arm64be-64k", Transport.LEGACY),
    "little-endian, 4K pages, modern": ("arm64le-4k", Transport.MODERN),
}


@dataclass
class Record:
    """What was seen in one life."""

    events: list = field(default_factory=list)

    @hookimpl
    def balloon_event(self, event):
        self.events.append(event)

    def pages(self, kind):
        """Return how many pages all events of a kind are about."""
        events = [event for event in self.events if isinstance(event, kind)]
        return sum(count for event in events for _, count in event.runs)


def machine_of(name, require_real):
    guest, transport = MACHINES[name]
    if not guest:
        return require_real(find_uml)
    tools = require_real(find_tools)
    return find_qemu(options_for(Life(guest, transport=transport), tools))


@pytest.fixture(scope="module", params=MACHINES)
def lived(request, require_real):
    """Give the record of a machine's life, with all features on offer."""
    machine = machine_of(request.param, require_real)
    options = DeviceOptions(
        reporting=True, hinting=True, deflate_on_oom=True, page_poison=True
    )
    plan = Plan(
        "evidence",
        target=1,
        memory=MEMORY * MEBIBYTE,
        timeout=PATIENCE,
        options=options,
    )
    with Stage(machine, plan) as stage:
        talk = Talk(stage, plan, lambda _: None, time.monotonic())
        return _Life(machine, stage, talk).live()


class _Life:
    """The chapters of a life."""

    def __init__(self, machine, stage, talk):
        self._machine = machine
        self._talk = talk
        self._record = Record()
        stage.with_device(lambda device: device.plugins.register(self._record))

    def live(self):
        seen = SimpleNamespace(record=self._record)
        self._boot()
        seen.held_before = self._talk.memory_held()
        self._load()
        self._until(lambda status: status.reported * 4096 >= USED * MEBIBYTE)
        seen.report, seen.status = self._compare()
        seen.held_after = self._talk.memory_held()
        seen.hints = self._hint()
        seen.full = self._fill()
        seen.needy = self._talk.ask(f"alloc {NEEDED}")
        seen.relieved = self._query()
        return seen

    def _query(self):
        return self._talk.device(lambda device: device.query())

    def _until(self, reached):
        """Wait until a query shows something; return the query."""
        found = []

        def look():
            status = self._query()
            if reached(status):
                found.append(status)
            return bool(found)

        self._talk.wait(look, "it is not to be seen")
        return found[0]

    def _boot(self):
        self._talk.wait(lambda: self._talk.view.booted, "not booted")
        for command in self._machine.use_memory(USED):
            self._talk.ask(command)

    def _load(self):
        talk = self._talk
        talk.send(f"insmod {self._machine.driver}")
        talk.wait(lambda: talk.view.driver_ready, "no driver")
        talk.hear_report("insmod")
        talk.device(lambda device: device.set_stats_interval(1))

    def _compare(self):
        """Return what guest and device say when nothing has changed in between."""
        before = self._query().stats
        since = -math.inf if before is None else before.updated
        report = self._talk.ask("device")
        news = self._until(lambda status: status.stats and status.stats.updated > since)
        return report, news

    def _hint(self):
        command = self._talk.device(lambda device: device.start_hinting())
        status = self._until(lambda status: status.hints.answer == 0)
        self._talk.device(lambda device: device.stop_hinting())
        self._talk.ask("device")
        return command, status.hints

    def _fill(self):
        pages = TARGET * MEBIBYTE // 4096
        self._talk.device(lambda device: device.set_target(pages))
        return self._until(lambda status: status.actual >= pages)


def test_statistics_are_what_the_guest_itself_prints(lived):
    stats = dict(lived.status.stats.values)

    assert stats[StatTag.VIRTIO_BALLOON_S_MEMTOT] == lived.report.total
    free = stats[StatTag.VIRTIO_BALLOON_S_MEMFREE]
    # Its own shell comes and goes in between.
    assert free == pytest.approx(lived.report.free, abs=12 * MEBIBYTE)
    assert StatTag.VIRTIO_BALLOON_S_AVAIL in stats


def test_statistics_are_new_each_second(lived):
    assert lived.status.stats.age < 10
    assert lived.status.stats_interval == 1


def test_reported_pages_really_leave_the_host(lived):
    reported = lived.status.reported * 4096

    assert reported >= USED * MEBIBYTE
    # Only blocks that are free as a whole are reported, of 2 or 4 MiB.
    assert lived.held_before - lived.held_after > USED * MEBIBYTE / 2
    assert lived.record.pages(PagesReported) * 4096 >= reported


def test_reported_pages_are_not_in_the_balloon(lived):
    assert lived.status.ballooned == lived.status.reclaimed == 0


def test_hints_are_told_until_there_are_no_more(lived):
    command, hints = lived.hints

    assert hints.command == command
    assert lived.record.pages(PagesHinted) == hints.pages


def test_a_guest_that_runs_out_takes_pages_back_and_lives(lived):
    assert lived.full.actual * 4096 >= TARGET * MEBIBYTE
    assert lived.relieved.actual < lived.full.actual
    assert lived.relieved.requested == lived.full.requested
    # Its answer comes with the content of all that it took.
    assert (lived.needy.kept, lived.needy.lost) == (NEEDED * MEBIBYTE // 4096, 0)


def test_a_driver_that_is_right_breaks_nothing(lived):
    assert (lived.relieved.faults, lived.relieved.last_fault) == (0, "")
