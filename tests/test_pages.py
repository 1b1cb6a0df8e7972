"""Runs, against sets of page numbers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from page_runs import KIB, ranges, runs_of

from balloon_plugin.pages import clip, covered, join, merge, overlapping, split, whole

# Clusters, so that there are neighbours, duplicates and gaps of one page.
pfns = st.lists(
    st.builds(int.__add__, st.sampled_from([0, 37, 1 << 32]), st.integers(0, 24))
)

# --- merge ---


@given(pfns)
@example([])
@example([3, 3, 3])
@example([0, 1, 3, 4])
@example([0, 2, 2, 3])
@example([0, 3])
def test_merge_is_the_runs_of_the_set(pfns):
    assert merge(pfns) == runs_of(set(pfns))


@pytest.mark.parametrize(
    "batch",
    [range(50, 306), range(305, 49, -1), [*range(50, 306), *range(50, 306)]],
    ids=["ascending", "descending", "twice"],
)
def test_a_contiguous_batch_is_one_run(batch):
    assert merge(batch) == [(50, 256)]


def test_merge_takes_any_iterable():
    assert merge(iter((5, 4, 9))) == [(4, 2), (9, 1)]


# --- clip ---

RAM = ranges((2, 6), (8, 5), (20, 10), (40, 1))
EDGES = {8}
RAM_PAGES = {*range(2, 13), *range(20, 30), 40}


@given(st.sets(st.integers(0, 50)))
@example({7, 8})
@example({12, 13, 19, 20, 29, 30})
@example(set(range(50)))
def test_clip_is_the_part_in_ram(pages):
    inside, outside = clip(runs_of(pages), RAM)

    assert inside == runs_of(pages & RAM_PAGES, EDGES)
    assert outside == len(pages - RAM_PAGES)


def test_clip_of_nothing_and_to_nothing():
    assert clip([], RAM) == ([], 0)
    assert clip([(0, 3), (9, 1)], ()) == ([], 4)


def test_clip_leaves_its_input_alone():
    runs = [(0, 100)]

    clip(runs, RAM)

    assert runs == [(0, 100)]


def test_clip_costs_nothing_per_page():
    everything = [(0, 1 << 40)]

    assert clip(everything, ranges((0, 1 << 39))) == ([(0, 1 << 39)], 1 << 39)


@pytest.mark.parametrize(
    ("runs", "found"),
    [
        ([], ()),
        ([(0, 2)], ()),
        ([(0, 3)], (0,)),
        ([(5, 3)], (0,)),
        ([(7, 1)], (0,)),
        ([(8, 1)], (1,)),
        ([(5, 1), (8, 1)], (0, 1)),
        ([(3, 1), (25, 1)], (0, 1, 2)),
        ([(30, 10)], ()),
        ([(30, 11)], (3,)),
        ([(41, 1)], ()),
    ],
)
def test_the_ranges_that_runs_may_lie_in(runs, found):
    assert overlapping(runs, RAM) == tuple(RAM[place] for place in found)


# --- ranges of bytes ---


@pytest.mark.parametrize(
    ("parts", "unit", "runs"),
    [
        ([], 4, []),
        ([(0, 4096)], 4, [(0, 1)]),
        ([(0, 4095)], 4, []),
        ([(1, 8192)], 4, [(1, 1)]),
        ([(4096, 4096), (0, 4096)], 4, [(0, 2)]),
        ([(0, 100), (100, 4000)], 4, [(0, 1)]),
        ([(0, 40960), (4096, 4096)], 4, [(0, 10)]),
        ([(8192, 65536)], 64, []),
        ([(8192, 65536), (73728, 65536)], 64, [(16, 16)]),
        ([(2**64 - 4096, 2**32 - 1)], 4, [(2**52 - 1, 2**20 - 1)]),
    ],
)
def test_ranges_cover_whole_units_together(parts, unit, runs):
    assert covered(parts, unit * KIB) == runs


@given(
    st.lists(st.tuples(st.integers(0, 200_000), st.integers(0, 70_000)), max_size=6),
    st.sampled_from([4 * KIB, 16 * KIB]),
)
def test_what_is_covered_is_what_all_bytes_of_which_are(parts, unit):
    """By a bit for each byte."""
    bits = 0
    for address, size in parts:
        bits |= (1 << size) - 1 << address

    whole = (1 << unit) - 1
    expected = {
        page
        for place in range(300_000 // unit)
        if bits >> place * unit & whole == whole
        for page in range(place * unit // 4096, (place + 1) * unit // 4096)
    }
    runs = covered(parts, unit)
    found = [page for first, count in runs for page in range(first, first + count)]
    assert found == sorted(expected)
    assert all(sum(run) < following[0] for run, following in itertools.pairwise(runs))


@given(
    st.lists(st.integers(1, 50), max_size=6),
    st.integers(1, 200),
)
def test_runs_are_split_after_so_many_pages(counts, pages):
    runs = [(100 * place, count) for place, count in enumerate(counts)]

    first, rest = split(runs, pages)

    assert sum(count for _, count in first) == min(pages, sum(counts))
    assert merge(
        page for start, count in first + rest for page in range(start, start + count)
    ) == merge(page for start, count in runs for page in range(start, start + count))


@pytest.mark.parametrize(
    ("runs", "inner"),
    [
        ([], []),
        ([(0, 16), (32, 32)], [(0, 16), (32, 32)]),
        ([(1, 15), (16, 15)], []),
        ([(1, 50), (60, 4), (64, 17)], [(16, 32), (64, 16)]),
    ],
)
def test_host_pages_are_whole_in_one_run(runs, inner):
    assert whole(runs, 16) == inner


def test_runs_are_split_between_two():
    assert split([(0, 2), (5, 3)], 2) == ([(0, 2)], [(5, 3)])
    assert split([(0, 2), (5, 3)], 5) == ([(0, 2), (5, 3)], [])


def test_runs_that_touch_or_overlap_are_joined():
    runs = [(0, 2), (4, 2), (6, 1), (6, 3), (10, 1)]

    assert join(runs) == [(0, 2), (4, 5), (10, 1)]
