"""What page numbers look like: nothing that a driver can send is held against it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from balloon_plugin.events import MemoryRange
from balloon_plugin.policies.evidence.numbers import (
    MANY_NEIGHBOURS,
    Buffer,
    Encoding,
    RamMap,
    swap32,
    swap_all,
)

MIB, GIB = 1 << 20, 1 << 30
LOW = RamMap.of([MemoryRange(0, 64 * MIB)])
ARM = RamMap.of([MemoryRange(GIB, 64 * MIB)])
HOLE = RamMap.of([MemoryRange(0, 16 * MIB), MemoryRange(GIB, 16 * MIB)])
UNKNOWN = RamMap.of([])
RIGHT, SWAPPED, UNSHIFTED, SHIFTED, SLOTS = Encoding

PAGES = st.sampled_from([1, 2, 4, 8, 16, 32, 64, 256])


def fits(entries, encoding, page=1, ram=LOW, taken=frozenset()):
    return Buffer(tuple(entries), ram, taken).fits(encoding, page)


def naive_swap(value):
    return sum((value >> 8 * i & 0xFF) << 8 * (3 - i) for i in range(4))


# --- what each kind of driver sends is explained by it ------------------------------


@st.composite
def guests(draw):
    """Return a page size, a guest's RAM, and some of its frames, no two the same."""
    page = draw(PAGES)
    starts = draw(st.sampled_from([(0,), (GIB,), (0, 4 * GIB), (GIB, 2 * GIB)]))
    size = draw(st.sampled_from([8 * MIB, 64 * MIB, 512 * MIB]))
    ram = [MemoryRange(start, size) for start in starts]
    frames = st.one_of(
        *(
            st.integers(
                part.start // 4096 // page, (part.start + size) // 4096 // page - 1
            )
            for part in ram
        )
    )
    chosen = draw(st.lists(frames, min_size=1, max_size=20, unique=True))
    if draw(st.booleans()):
        first = min(chosen)
        chosen = list(range(first, first + len(chosen)))
        ends = [(part.start + size) // 4096 // page for part in ram]
        assume(any(first < end and chosen[-1] < end for end in ends))
        assume(len({sum(frame >= end for end in ends) for frame in chosen}) == 1)
    return page, RamMap.of(ram), chosen


def pieces(page, frames):
    return [frame * page + i for frame in frames for i in range(page)]


@given(guests())
def test_right_numbers_are_right_with_the_guests_page_and_with_each_smaller(guest):
    page, ram, frames = guest

    entries = tuple(pieces(page, frames))

    right, swapped = Buffer(entries, ram), Buffer(swap_all(entries), ram)
    for smaller in itertools.takewhile(lambda p: p <= page, (2**i for i in range(9))):
        assert right.fits(RIGHT, smaller)
        assert swapped.fits(SWAPPED, smaller)


@given(guests())
def test_unshifted_numbers_are_explained(guest):
    page, ram, frames = guest

    assert fits(frames, UNSHIFTED, page, ram)


@given(guests())
def test_wrongly_shifted_numbers_are_explained(guest):
    page, ram, frames = guest
    assume(page > 1)

    # By itself a frame in each of many groups, side by side, would be most unusual.
    assume(len(frames) < MANY_NEIGHBOURS)
    assert fits([frame // page for frame in frames], SHIFTED, page, ram)


@given(guests())
def test_slots_are_explained(guest):
    _, ram, frames = guest
    page = guest[0]

    entries = itertools.chain.from_iterable((n, 0) for n in pieces(page, frames))

    assert fits(entries, SLOTS, 1, ram)


# --- and what is not ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "encoding", "page", "ram", "expected"),
    [
        # one number for each page: twice is impossible
        ([5, 6], RIGHT, 1, LOW, True),
        ([5, 5], RIGHT, 1, LOW, False),
        ([naive_swap(5), naive_swap(5)], SWAPPED, 1, LOW, False),
        ([5, 5], UNSHIFTED, 16, LOW, False),
        # ... inside RAM
        ([16383], RIGHT, 1, LOW, True),
        ([16384], RIGHT, 1, LOW, False),
        ([5, 16384], RIGHT, 1, LOW, False),
        ([0x40000], RIGHT, 1, ARM, True),
        ([0x3FFFF], RIGHT, 1, ARM, False),
        ([4095], RIGHT, 1, HOLE, True),
        ([4096], RIGHT, 1, HOLE, False),
        ([4095, 0x40000], RIGHT, 1, HOLE, True),
        ([4095, 4096, 0x40000], RIGHT, 1, HOLE, False),
        ([0x40000, 5], RIGHT, 1, HOLE, True),
        ([0x40000, 0x41000], RIGHT, 1, HOLE, False),
        ([5, 0x41000], RIGHT, 1, HOLE, False),
        ([5], SWAPPED, 1, LOW, False),
        ([0x05000000], SWAPPED, 1, LOW, True),
        # ... and whole pages, on their place and in order
        ([16, 17, 18, 19], RIGHT, 4, LOW, True),
        ([17, 18, 19, 20], RIGHT, 4, LOW, False),
        ([16, 17, 18], RIGHT, 4, LOW, False),
        ([16, 18, 17, 19], RIGHT, 4, LOW, False),
        ([16, 17, 18, 19, 4, 5, 6, 7], RIGHT, 4, LOW, True),
        ([16, 17, 18, 19, 4, 5, 6, 7], RIGHT, 8, LOW, False),
        ([16, 17, 20, 21], RIGHT, 2, LOW, True),
        ([16, 17, 20, 21], RIGHT, 4, LOW, False),
        ([0, 1, 2, 3], RIGHT, 4, LOW, True),
        # numbers divided by 16: RAM of 64 MiB has 1024 pages of 64 KiB
        ([1023], UNSHIFTED, 16, LOW, True),
        ([1024], UNSHIFTED, 16, LOW, False),
        ([0x4000], UNSHIFTED, 16, ARM, True),
        ([0x3FFF], UNSHIFTED, 16, ARM, False),
        # ... and by 256, up to 16 of them the same
        ([63] * 16, SHIFTED, 16, LOW, True),
        ([63] * 17, SHIFTED, 16, LOW, False),
        ([64] * 16, SHIFTED, 16, LOW, False),
        ([63] * 5, SHIFTED, 4, LOW, False),
        ([0x400], SHIFTED, 16, ARM, True),
        ([0x3FF], SHIFTED, 16, ARM, False),
        # eight bytes each: every second entry is 0
        ([5, 0, 6, 0], SLOTS, 1, LOW, True),
        ([5, 0, 6, 1], SLOTS, 1, LOW, False),
        ([5, 0, 6], SLOTS, 1, LOW, False),
        ([5, 0, 5, 0], SLOTS, 1, LOW, False),
        ([16384, 0], SLOTS, 1, LOW, False),
    ],
)
def test_what_a_driver_cannot_have_sent(entries, encoding, page, ram, expected):
    assert fits(entries, encoding, page, ram) is expected


@pytest.mark.parametrize(
    ("encoding", "explained"),
    [(RIGHT, False), (SWAPPED, False), (UNSHIFTED, False), (SHIFTED, True)],
)
def test_a_number_that_is_in_the_balloon_cannot_come_again(encoding, explained):
    ram = RamMap.of([MemoryRange(0, 1 << 44)])
    page = 1 if encoding in (RIGHT, SWAPPED) else 16

    assert fits([5, 9], encoding, page, ram, {7})
    assert fits([5, 9], encoding, page, ram, {9}) is explained


def test_many_neighbours_without_any_number_twice_rule_out_the_wrong_shift():
    few, enough = range(100, 100 + MANY_NEIGHBOURS), range(100, 101 + MANY_NEIGHBOURS)
    ram = RamMap.of([MemoryRange(0, GIB)])

    assert fits(few, SHIFTED, 16, ram)
    assert not fits(enough, SHIFTED, 16, ram)
    assert not fits(reversed(enough), SHIFTED, 16, ram)
    assert fits([*enough, 100], SHIFTED, 16, ram)


def test_neighbours_count_over_all_buffers():
    ram = RamMap.of([MemoryRange(0, GIB)])
    taken = set(range(100, 120))

    assert fits(range(120, 132), SHIFTED, 16, ram, taken)
    assert not fits(range(120, 133), SHIFTED, 16, ram, taken)


def test_where_ram_is_not_known_no_number_is_outside():
    for encoding in Encoding:
        assert fits([0x12345678, 0], encoding, 1, UNKNOWN)


# --- against a slower way to say the same -------------------------------------------

ENTRIES = st.one_of(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=8),
    st.lists(st.integers(0, 40), min_size=1, max_size=24),
    st.builds(
        lambda starts, page: pieces(page, starts),
        st.lists(st.integers(0, 30), min_size=1, max_size=6),
        st.sampled_from([1, 2, 4, 8]),
    ),
)


@st.composite
def maps(draw):
    edges = sorted(draw(st.sets(st.integers(0, 60), min_size=2, max_size=8)))
    ends = [*zip(edges[::2], edges[1::2], strict=False)]
    return RamMap(tuple(start for start, _ in ends), tuple(end for _, end in ends))


def slowly_right(entries, page, ram):
    whole = [entries[i : i + page] for i in range(0, len(entries), page)]
    return (
        len(set(entries)) == len(entries)
        and all(
            any(
                start <= entry < end
                for start, end in zip(ram.starts, ram.ends, strict=True)
            )
            for entry in entries
        )
        and all(
            part[0] % page == 0 and part == list(range(part[0], part[0] + page))
            for part in whole
        )
    )


@given(ENTRIES, st.sampled_from([1, 2, 4, 8, 16]), maps())
def test_right_is_what_it_says(entries, page, ram):
    expected = slowly_right(entries, page, ram)

    assert fits(entries, RIGHT, page, ram) is expected
    assert fits(map(naive_swap, entries), SWAPPED, page, ram) is expected


@given(ENTRIES, maps(), st.integers(0, 3))
def test_the_image_of_ram_is_where_divided_numbers_lie(entries, ram, shift):
    inside = {
        number >> shift
        for start, end in zip(ram.starts, ram.ends, strict=True)
        for number in range(start, end)
    }
    distinct = len(set(entries)) == len(entries)

    expected = distinct and inside.issuperset(entries)

    assert fits(entries, UNSHIFTED, 1 << shift, ram) is expected


@given(st.integers(0, 2**32 - 1))
def test_swapping_is_its_own_inverse(value):
    assert swap32(value) == naive_swap(value)
    assert swap32(swap32(value)) == value
    assert swap_all((value, 1)) == (naive_swap(value), 0x01000000)


def test_every_answer_is_worked_out_once():
    buffer = Buffer((1, 2, 3), LOW)
    for encoding in Encoding:
        for page in (4, 16):
            first = buffer.fits(encoding, page)

            assert buffer.fits(encoding, page) is first
