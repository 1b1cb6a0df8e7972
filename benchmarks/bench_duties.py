"""What statistics, reports and hints cost, from the kick to the answer."""

from __future__ import annotations

import struct

import machine as machines
import pytest
from contest import Samples, timed
from machine import FIRST_PAGE, PAGE, VERSION_1

STATSQ, HINTQ, REPORTQ = 2, 3, 4
FEATURES = VERSION_1 | 1 << 5 | 1 << 3 | 1 << 1

SIXTEEN = b"".join(struct.pack("<HQ", tag, 1000 + tag) for tag in range(16))
"""What Linux 6.12 sends."""

BLOCK = 4 << 20
"""Bytes of a block that Linux reports."""

REPORT = 32
"""Blocks in one report: 128 MiB."""

HEAD = "blocks of 4 MiB", "pages", "ours, us", "the holes alone, us", "ours : holes"


@pytest.fixture
def make():
    """Give what makes machines whose drivers accepted everything, and closes them."""
    made = []

    def make(policy, pages):
        machine = machines.Machine(policy, pages, reporting=True, hinting=True)
        made.append(machine)
        machine.device.set_features(FEATURES)
        machine.device.driver_ready()
        return machine

    yield make
    for machine in made:
        machine.close()


@pytest.mark.parametrize("policy", ["none", "evidence"])
def test_statistics(benchmark, make, policy, book, yardstick):
    """Measure a sample: it is read, shown to the policy, kept, and asked for again."""
    benchmark.group = "statistics"
    machine = make(policy, 1)

    def setup():
        yardstick.look()
        machine.driver.send(SIXTEEN, STATSQ)

    def serve():
        machine.device.queue_notify(STATSQ)
        machine.device.set_stats_interval(1)

    benchmark.pedantic(serve, setup=setup, rounds=500, warmup_rounds=10)

    assert machine.driver.answered(STATSQ)
    assert len(machine.device.query().stats.values) == 16
    what = f"16 statistics, and the next request ({policy})"
    book.time(what, min(benchmark.stats.stats.data), (150, "us"), yardstick)


@pytest.mark.parametrize("blocks", [1, REPORT])
def test_report(benchmark, make, blocks, book):
    """Measure a report of pages that exist, beside the holes that it needs."""
    benchmark.group = "reports"
    pages = BLOCK // PAGE
    # With gaps, so that each block is a hole of its own.
    ranges = [(FIRST_PAGE + 2 * pages * place, pages) for place in range(blocks)]
    machine = make("none", 2 * pages * blocks)
    ours, holes = [], []

    def fill():
        for first, count in ranges:
            machine.driver.populate(range(first, first + count))

    def turn():
        fill()
        machine.driver.lend(ranges, REPORTQ)
        ours.append(timed(machine.device.queue_notify, REPORTQ))
        assert machine.driver.answered(REPORTQ)
        fill()
        holes.append(timed(machine.host.mapped.discard, ranges))

    benchmark.pedantic(turn, rounds=12, warmup_rounds=1)

    assert machine.device.query().reported % (blocks * pages) == 0
    mine, bare = Samples(ours).usual, Samples(holes).usual
    cells = f"{mine * 1e6:,.0f}", f"{bare * 1e6:,.0f}", f"**{mine / bare:.2f}**"
    book.row("One report of free pages", HEAD, blocks, blocks * pages, *cells)


def test_hints(benchmark, make, book, yardstick):
    """Measure 4 MiB that are hinted at; nothing is given back."""
    benchmark.group = "hints"
    machine = make("none", BLOCK // PAGE)
    machine.driver.send(struct.pack("<I", machine.device.start_hinting()), HINTQ)
    machine.device.queue_notify(HINTQ)

    def setup():
        yardstick.look()
        machine.driver.lend([(FIRST_PAGE, BLOCK // PAGE)], HINTQ)

    def serve():
        machine.device.queue_notify(HINTQ)

    benchmark.pedantic(serve, setup=setup, rounds=500, warmup_rounds=10)

    assert machine.driver.answered(HINTQ)
    least = min(benchmark.stats.stats.data)
    book.time("a hint at 4 MiB", least, (80, "us"), yardstick)
