"""What hooks cost: one call, and how many of them a kick takes."""

from __future__ import annotations

import collections

import machine as machines
import patterns
import pytest
from contest import timed
from yardstick import make_calls

HEAD = "buffers", "hook calls", "of which", "their share of the kick"


def test_a_hundred_calls(benchmark):
    benchmark.group = "hooks"
    benchmark.pedantic(make_calls(), rounds=500, warmup_rounds=10)


@pytest.mark.parametrize("buffers", [1, 128])
def test_calls_of_a_kick(buffers, book, yardstick):
    """Count the calls of a kick; all pages exist, and are contiguous."""
    machine = machines.believed("none", patterns.room(buffers, 1))
    batches = patterns.contiguous(buffers)

    kicks = []
    for _ in range(10):
        yardstick.look()
        _offer(machine, batches)
        kicks.append(timed(machine.serve, 0))
        machine.deflate(batches)
    names = collections.Counter()
    _offer(machine, batches)
    machine.device.plugins.add_hookcall_monitoring(
        lambda name, *_: names.update([name]), lambda *_: None
    )
    machine.serve(0)

    assert names["queue_notify"] == machine.turns
    each = ", ".join(f"{name} {count}" for name, count in names.most_common())
    share = f"{yardstick.best * names.total() / min(kicks):.0%}"
    book.row("Hook calls of a kick", HEAD, buffers, names.total(), each, share)
    machine.close()


def _offer(machine, batches):
    for batch in batches:
        machine.driver.populate(batch)
    machine.driver.offer(batches)
