"""Pages that a host holds back, by the side of a set of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.report.held import Held

STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 40), st.integers(0, 9))
)


@given(STEPS)
def test_they_are_counted_as_one_by_one(steps):
    held, one_by_one = Held(), set()
    for step, first, count in steps:
        getattr(held, step)(first, count)
        run = range(first, first + count)
        change = one_by_one.update if step == "add" else one_by_one.difference_update
        change(run)

        assert held.pages == len(one_by_one)
        runs = list(zip(held._starts, held._ends, strict=True))
        assert runs == sorted(runs)


def test_none_are_left_after_a_reset():
    held = Held()
    held.add(3, 5)

    held.clear()

    assert held.pages == 0


def test_they_may_be_more_than_fit_into_memory():
    held = Held()

    held.add(0, 2**64 - 1)
    held.remove(7, 1)

    assert held.pages == 2**64 - 2
