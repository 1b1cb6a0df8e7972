"""Positions in a packed ring."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.virtqueue.laps import Laps

sizes = st.integers(1, 32768)
AVAIL, USED = 1 << 7, 1 << 15


@given(sizes, st.data())
def test_a_position_goes_over_the_wire_and_back(size, data):
    laps = Laps(size)
    position = data.draw(st.integers(0, 2 * size - 1))

    word = laps.encode(position)

    assert laps.decode(word) == position
    assert word & 0x7FFF == laps.place(position) == position % size
    assert word >> 15 == (position < size)


@given(sizes, st.data())
def test_steps_are_counted_over_two_laps(size, data):
    laps = Laps(size)
    position = data.draw(st.integers(0, 2 * size - 1))
    count = data.draw(st.integers(0, 2 * size - 1))

    after = laps.after(position, count)

    assert laps.distance(position, after) == count
    assert laps.place(after) == (laps.place(position) + count) % size


def test_marks_turn_with_the_lap():
    laps = Laps(3)

    marks = [(laps.offer(position), laps.use(position)) for position in (0, 2, 3, 5)]
    assert marks == [(AVAIL, AVAIL | USED)] * 2 + [(USED, 0)] * 2


@given(st.integers(1, 20), st.data())
def test_the_ring_itself_shows_how_far_a_device_has_come(size, data):
    laps = Laps(size)
    flags, offered, used = [0] * size, 0, 0
    for offer in data.draw(st.lists(st.booleans(), max_size=100)):
        if offer and offered - used < size:
            flags[offered % size] = laps.offer(offered % (2 * size))
            offered += 1
        elif used < offered:
            flags[used % size] = laps.use(used % (2 * size))
            used += 1

        assert laps.find(flags) == used % (2 * size)


@pytest.mark.parametrize("used", [[1, 0, 1], [0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0, 1]])
def test_a_ring_that_was_not_used_one_by_one_shows_nothing(used):
    assert Laps(len(used)).find([USED * bit for bit in used]) is None
