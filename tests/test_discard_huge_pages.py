"""Huge pages of the kernel that there is, given back as a whole or in pieces."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os

import pytest
from huge_pages import (
    HUGE,
    PIECES,
    a_huge_memfd,
    fill_on_huge_pages,
    free,
    shared_transparently,
)
from own_memory import own

from balloon_plugin.hosts.discard import Backing, give_back

PAGE = 4096
SIZE = 6 * HUGE
MAP_HUGETLB = 0x40000


# --- hugetlb: all or nothing --------------------------------------------------------


@pytest.fixture(params=["shared", "private"])
def backing(request):
    """Six huge pages, full of ones."""
    request.getfixturevalue("huge_pages")
    fd = None
    if request.param == "shared":
        fd = a_huge_memfd(SIZE)
        mapping = mmap.mmap(fd, SIZE)
    else:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB
        mapping = mmap.mmap(-1, SIZE, flags)
    mapping[:] = b"\1" * SIZE
    yield Backing(0, SIZE, mapping, file=fd, page_size=HUGE)
    mapping.close()
    if fd is not None:
        os.close(fd)


def kept(backing):
    """Return the pages that still hold what was written."""
    mapping = backing.mapping
    return [page for page in range(SIZE // PAGE) if mapping[page * PAGE]]


@pytest.mark.parametrize(
    ("runs", "whole"),
    [
        ([(0, PIECES)], [0]),
        ([(PIECES, 3 * PIECES)], [1, 2, 3]),
        ([(0, PIECES), (2 * PIECES, PIECES), (4 * PIECES, 2 * PIECES)], [0, 2, 4, 5]),
        # The parts at both ends stay.
        ([(7, 2 * PIECES)], [1]),
        ([(7, 2 * PIECES), (4 * PIECES - 1, PIECES + 2)], [1, 4]),
    ],
)
def test_whole_ones_go_back_to_the_pool(backing, runs, whole):
    before = free()

    given = give_back([backing], runs)

    assert given == len(whole) * PIECES
    assert free() - before == len(whole)
    gone = {page for at in whole for page in range(at * PIECES, (at + 1) * PIECES)}
    assert kept(backing) == [page for page in range(SIZE // PAGE) if page not in gone]


@pytest.mark.parametrize(
    "runs",
    [
        [(0, PIECES - 1)],
        [(1, PIECES)],
        [(page, 1) for page in range(0, 2 * PIECES, 2)],
        [(PIECES // 2, PIECES)],
    ],
)
def test_a_part_of_one_is_left_as_it_was(backing, runs):
    before = free()

    assert give_back([backing], runs) == 0
    assert free() == before
    assert len(kept(backing)) == SIZE // PAGE


def test_a_range_may_begin_inside_one(backing):
    inner = Backing(
        start=PAGE * 1000,
        size=SIZE - 2 * HUGE,
        mapping=backing.mapping,
        at=HUGE + PAGE,
        file=backing.file,
        file_at=HUGE + PAGE,
        page_size=HUGE,
    )
    before = free()

    # Its first huge page is not all its own, its last one neither.
    assert give_back([inner], [(1000, SIZE // PAGE)]) == 3 * PIECES
    assert free() - before == 3
    assert kept(backing) == [*range(2 * PIECES), *range(5 * PIECES, 6 * PIECES)]


# --- transparent ones: piece by piece -----------------------------------------------


@pytest.fixture
def file(require_real):
    """A file whose memory is on huge pages, if that is asked for."""
    with contextlib.ExitStack() as stack:
        require_real(lambda: stack.enter_context(shared_transparently()))
        file = os.memfd_create("guest")
        stack.callback(os.close, file)
        os.ftruncate(file, SIZE)
        yield file


def blocks(file):
    return os.fstat(file).st_blocks * 512 // PAGE


def test_pages_of_shared_ones_are_freed_one_by_one(file, require_real):
    with mmap.mmap(file, SIZE) as mapping:
        require_real(lambda: fill_on_huge_pages(mapping, "ShmemPmdMapped"))
        backing = Backing(0, SIZE, mapping, file=file)

        given = give_back([backing], [(3, 1), (PIECES + 9, 16), (3 * PIECES - 1, 2)])

        assert given == 19
        assert blocks(file) == SIZE // PAGE - 19
        gone = {3, *range(PIECES + 9, PIECES + 25), 3 * PIECES - 1, 3 * PIECES}
        assert set(range(SIZE // PAGE)) - set(kept(backing)) == gone


def test_private_ones_are_left_by_the_process_page_by_page(require_real):
    # The kernel frees one when its last page is dropped, or when memory runs short.
    with mmap.mmap(-1, SIZE + HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as mapping:
        require_real(lambda: fill_on_huge_pages(mapping, "AnonHugePages"))
        at = -ctypes.addressof(ctypes.c_char.from_buffer(mapping)) % HUGE
        before = own("Anonymous")

        given = give_back(
            [Backing(0, SIZE, mapping, at)],
            [(page, PIECES // 2) for page in range(0, SIZE // PAGE, PIECES)],
        )

        assert given == SIZE // PAGE // 2
        assert before - own("Anonymous") == pytest.approx(SIZE // 2, abs=HUGE // 8)
