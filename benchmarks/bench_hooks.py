"""What hooks cost: one call, and how many of them a kick takes."""

from __future__ import annotations

import collections

import machine as machines
import patterns
import pytest
import yardstick
from contest import Samples, timed

HEAD = "buffers", "hook calls", "of which", "their share of the kick"


def test_a_hundred_calls(benchmark):
    benchmark.group = "hooks"
    benchmark.pedantic(yardstick.make_calls(), rounds=500, warmup_rounds=10)


@pytest.mark.parametrize("buffers", [1, 128])
def test_calls_of_a_kick(buffers, book):
    """Count the calls of a kick; all pages exist, and are contiguous."""
    machine = machines.believed("none", patterns.room(buffers, 1))
    batches = patterns.contiguous(buffers)

    kicks = []
    for _ in range(10):
        _offer(machine, batches)
        kicks.append(timed(machine.device.queue_notify, 0))
        machine.deflate(batches)
    calls = yardstick.hook_call()
    names = collections.Counter()
    _offer(machine, batches)
    machine.device.plugins.add_hookcall_monitoring(
        lambda name, *_: names.update([name]), lambda *_: None
    )
    machine.device.queue_notify(0)

    assert names["queue_notify"] == 1
    each = ", ".join(f"{name} {count}" for name, count in names.most_common())
    share = f"{calls * names.total() / Samples(kicks).usual:.0%}"
    book.row("Hook calls of a kick", HEAD, buffers, names.total(), each, share)
    machine.close()


def _offer(machine, batches):
    for batch in batches:
        machine.driver.populate(batch)
    machine.driver.offer(batches)
