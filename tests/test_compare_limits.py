"""What nobody can do better: that it happens, and that it is no excuse for more."""

from __future__ import annotations

import pytest

from balloon_plugin.compare import run
from balloon_plugin.compare.circumstances import find as circumstance
from balloon_plugin.compare.limits import LIMITS, limit
from balloon_plugin.compare.tally import FAILURES, tally
from balloon_plugin.guests import GUESTS, find

EXAMPLES = {
    "perfect liar": ("perfect-liar-be-4k", "usual"),
    "unloaded after the test": ("linux-3.3-be-64k", "module-reload-in-idle"),
    "unshifted numbers in the dark": ("linux-2.6.27-be-64k", "usual"),
    "right numbers that look unshifted": (
        "openbsd-le-4k",
        "aligned-queues+contiguous",
    ),
}


def row_of(guest, name, policy="evidence"):
    return run(find(guest), policy, circumstance(name))


def failures_of(row):
    return {failure.head for failure in FAILURES if failure.failed(row)} - {"parked"}


@pytest.mark.parametrize("each", LIMITS, ids=lambda each: each.name)
def test_each_is_needed(each):
    row = row_of(*EXAMPLES[each.name])

    failures = failures_of(row)

    assert failures
    assert failures <= each.heads
    assert {limit(row, head) for head in failures} == {each}
    [counted] = tally([row])
    assert (counted.failures, counted.unavoidable) == (0, 1)


@pytest.mark.parametrize(
    ("guest", "name"),
    [
        # 4 KiB pages are freed rightly
        ("linux-3.3-be-4k", "module-reload-in-idle"),
        # nobody is unloaded
        ("linux-3.3-be-64k", "usual"),
        # the host helps
        ("linux-2.6.27-be-64k", "host-knows-page-size"),
        ("linux-2.6.27-be-64k", "ram-at-1g"),
        # queues tell
        ("openbsd-le-4k", "contiguous"),
        # this liar is found out
        ("liar-be-4k", "usual"),
    ],
)
def test_none_is_an_excuse_for_what_can_be_done(guest, name):
    row = row_of(guest, name)

    assert not failures_of(row)
    assert all(limit(row, failure.head) is None for failure in FAILURES)


def test_the_guest_that_took_over_counts_too():
    row = row_of("linux-3.4-be-4k", "kexec-into:linux-2.6.27-be-64k")

    assert row.judged == "linux-2.6.27-be-64k"
    assert failures_of(row) == {"unusable"}
    assert limit(row, "unusable").name == "unshifted numbers in the dark"


def test_a_liar_is_to_be_believed_by_nobody_though_it_is_by_all():
    assert all(
        row_of(name, "usual", policy).verdict == "good"
        for name in GUESTS
        if name.startswith("perfect-liar")
        for policy in ("none", "probe", "evidence")
    )
