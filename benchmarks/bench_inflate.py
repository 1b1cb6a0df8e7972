"""What an inflation costs, from the kick to the used buffer, on pages that exist."""

from __future__ import annotations

import machine as machines
import patterns
import pytest
import rivals
from contest import Contest

BUFFERS_IN_A_ROW = 16
BUFFERS_AT_ONCE = 128

ONE_BUFFER = {
    "contiguous": patterns.contiguous,
    "runs of 16": patterns.in_runs,
    "shuffled": patterns.shuffled,
    "every second": patterns.every_second,
    "scattered": patterns.scattered,
}
MANY_BUFFERS = {
    "contiguous": patterns.contiguous,
    "shuffled": patterns.shuffled_together,
    "every second": patterns.every_second,
}


@pytest.fixture
def believed():
    """Give what makes machines, and closes them."""
    made = []

    def make(policy, pages):
        made.append(machines.believed(policy, pages))
        return made[-1]

    yield make
    for machine in made:
        machine.close()


def test_empty_call(benchmark, book):
    """Measure what a system call takes that does nothing."""
    benchmark.group = "system calls"
    benchmark.pedantic(rivals.empty_call, iterations=100, rounds=200)

    least = f"{min(benchmark.stats.stats.data) * 1e9:,.0f}"
    book.row("An empty system call by ctypes", ("ns",), least)


@pytest.mark.parametrize("policy", machines.POLICIES)
def test_own_share(benchmark, believed, policy, book, yardstick):
    """Measure a kick with one contiguous buffer on a host that discards nothing."""
    benchmark.group = "1 contiguous buffer of 256 pages, without discards"
    batches = patterns.contiguous(1)
    machine = believed(policy, patterns.room(1))
    machine.host.mapped.discard = lambda runs: sum(count for _, count in runs)

    def setup():
        yardstick.look()
        machine.write_actual(0)
        machine.target()
        machine.driver.offer(batches)

    def teardown(_queue):
        assert machine.device.query().reclaimed == machines.BATCH
        machine.write_actual(machines.BATCH)
        machine.deflate(batches)

    benchmark.pedantic(
        machine.device.queue_notify,
        (0,),
        setup=setup,
        teardown=teardown,
        rounds=500,
        warmup_rounds=10,
    )

    what = f"own share of a contiguous inflate of 256 pages ({policy})"
    book.time(what, min(benchmark.stats.stats.data), (60, "us"), yardstick)


@pytest.mark.parametrize("pattern", ONE_BUFFER)
@pytest.mark.parametrize("policy", machines.POLICIES)
def test_one_buffer(benchmark, believed, policy, pattern, book):
    """Measure a kick with one buffer of 256 pages; 16 of them follow each other."""
    benchmark.group = f"1 buffer of 256 pages, {policy}"
    batches = ONE_BUFFER[pattern](BUFFERS_IN_A_ROW)
    machine = believed(policy, patterns.room(BUFFERS_IN_A_ROW))

    contest = Contest(machine, [[batch] for batch in batches])
    contest.run(benchmark, turns=12)

    book.inflation("One kick with one buffer of 256 pages", policy, pattern, contest)


@pytest.mark.parametrize("pattern", MANY_BUFFERS)
@pytest.mark.parametrize("policy", ["none", "evidence, proved"])
def test_many_buffers(benchmark, believed, policy, pattern, book):
    """Measure one kick with 128 buffers of 256 pages, 128 MiB in all."""
    benchmark.group = f"128 buffers of 256 pages, {policy}"
    batches = MANY_BUFFERS[pattern](BUFFERS_AT_ONCE)
    machine = believed(policy, patterns.room(BUFFERS_AT_ONCE, 2))

    contest = Contest(machine, [batches])
    contest.run(benchmark, turns=6)

    title = "One kick with 128 buffers of 256 pages"
    book.inflation(title, policy, pattern, contest)
