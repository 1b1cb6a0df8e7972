"""Advice for many runs at once, from the kernel that there is."""

from __future__ import annotations

import mmap
import os
import re

import pytest
from own_memory import lock

from balloon_plugin.hosts import advise as module
from balloon_plugin.hosts.advise import advise

PAGE = 4096


@pytest.fixture
def mapping():
    made = mmap.mmap(-1, 4096 * PAGE, flags=mmap.MAP_PRIVATE)
    made[:] = b"\1" * len(made)
    yield made
    made.close()


def gone(mapping):
    return [at // PAGE for at in range(0, len(mapping), PAGE) if not mapping[at]]


LINUX = tuple(map(int, re.findall("[0-9]+", os.uname().release)[:2]))

# Not what `advise` itself says: it would hide that it is broken.
needs_it = pytest.mark.skipif(
    LINUX < (6, 14), reason="process_madvise of one's own memory: Linux 6.14"
)


@needs_it
def test_all_runs_in_a_few_calls(mapping):
    runs = [(page, 1) for page in range(0, 4096, 3)]

    assert advise(mapping, mmap.MADV_DONTNEED, runs, 0) == 1366
    assert gone(mapping) == list(range(0, 4096, 3))


@needs_it
def test_runs_of_any_size(mapping):
    assert advise(mapping, mmap.MADV_DONTNEED, [(1, 2), (100, 1000)], 0) == 2
    assert gone(mapping) == [1, 2, *range(100, 1100)]


@needs_it
@pytest.mark.parametrize("page_0", [-1000, 1000])
def test_pages_are_counted_from_anywhere(mapping, page_0):
    runs = [(1500, 2), (1600, 1)]

    assert advise(mapping, mmap.MADV_DONTNEED, runs, page_0 * PAGE) == 2
    assert gone(mapping) == [page_0 + page for page in (1500, 1501, 1600)]


@needs_it
@pytest.mark.parametrize("place", [0, 1000, 1023, 1024, 2047])
def test_it_ends_where_the_kernel_refuses(mapping, place):
    runs = [(2 * number, 1 + number % 2) for number in range(2048)]
    lock(mapping, 2 * place)

    assert advise(mapping, mmap.MADV_DONTNEED, runs, 0) == place
    assert gone(mapping) == [
        page + piece for page, count in runs[:place] for piece in range(count)
    ]


@needs_it
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_gives_back_its_own_memory_only(mapping):
    child = os.fork()
    if not child:
        taken = advise(mapping, mmap.MADV_DONTNEED, [(0, 1), (1, 1)], 0)
        os._exit(0 if taken == 2 and gone(mapping) == [0, 1] else 1)

    assert os.waitpid(child, 0)[1] == 0
    assert gone(mapping) == []


def test_a_kernel_that_does_not_know_it_takes_nothing(mapping, monkeypatch):
    monkeypatch.setattr(module, "_PIDFD_SELF", -1)

    assert advise(mapping, mmap.MADV_DONTNEED, [(0, 1), (1, 1)], 0) == 0
    assert gone(mapping) == []


def test_what_cannot_be_written_to_is_left_alone():
    with mmap.mmap(-1, PAGE, prot=mmap.PROT_READ) as mapping:
        assert advise(mapping, mmap.MADV_DONTNEED, [(0, 1)], 0) == 0


def test_the_mapping_can_be_closed_at_once(mapping):
    advise(mapping, mmap.MADV_DONTNEED, [(0, 1), (1, 1)], 0)

    mapping.close()
