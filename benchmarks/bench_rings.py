"""What a ring costs in each of its forms: alone, and as a part of a whole kick.

All forms take turns in one run, so that what matters is their ratio to the first.
"""

from __future__ import annotations

import machine as machines
import patterns
import pytest
from contest import Samples, timed

FORMS = {
    "split": 0,
    "split, EVENT_IDX": machines.EVENT_IDX,
    "packed": machines.PACKED,
    "packed, EVENT_IDX": machines.PACKED | machines.EVENT_IDX,
}
AT_MOST = 1.3
"""What a packed ring may cost, in terms of a split one."""

HEAD = "buffers", "ring", "least, us", "usual, us", "of split"
ROUNDS = 400
CHAINS_AT_ONCE = 16


@pytest.fixture
def made():
    """Give machines with rings of each form, whose driver is believed."""
    made = {
        form: machines.believed("none", patterns.room(128, 1), features)
        for form, features in FORMS.items()
    }
    for machine in made.values():
        machine.host.mapped.discard = lambda runs: sum(count for _, count in runs)
    yield made
    for machine in made.values():
        machine.close()


@pytest.mark.parametrize("count", [1, 128])
def test_a_ring(made, count, book):
    """Take buffers of 256 page numbers and give them back; nobody looks into them."""
    samples = in_turns(made, patterns.contiguous(count), serve_ring, ROUNDS)

    usual = note(book, "Rings alone: buffers taken and given back", count, samples)
    for event_idx in ("", ", EVENT_IDX"):
        ratio = usual[f"packed{event_idx}"] / usual[f"split{event_idx}"]
        book.size(f"packed{event_idx} : split, {count} buffers", ratio, AT_MOST, "")


@pytest.mark.parametrize("count", [1, 128])
def test_a_kick(made, count, book):
    """Serve a whole kick, but for the discards."""
    rounds = ROUNDS if count == 1 else 12
    samples = in_turns(made, patterns.contiguous(count), serve_kick, rounds)

    note(book, "A kick of buffers of 256 pages, without discards", count, samples)


def in_turns(made, batches, serve, rounds):
    """Return samples of each form."""
    seconds = {form: [] for form in made}
    for _ in range(rounds):
        for form, machine in made.items():
            machine.driver.offer(batches)
            seconds[form].append(timed(serve, machine))
            assert machine.driver.answered()
    return {form: Samples(each) for form, each in seconds.items()}


def serve_ring(machine):
    queue, chains = machine.host.queue(0), []
    while popped := queue.pop(CHAINS_AT_ONCE):
        chains += popped
    queue.push(chains)


def serve_kick(machine):
    machine.serve(0)


def note(book, title, count, samples):
    """Write samples down; return the usual of each."""
    first = samples["split"].usual
    for form, each in samples.items():
        times = f"{each.best * 1e6:,.1f}", f"{each.usual * 1e6:,.1f}"
        book.row(title, HEAD, count, form, *times, f"**{each.usual / first:.2f}**")
    return {form: each.usual for form, each in samples.items()}
