"""Positions in a packed ring."""

from __future__ import annotations

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
