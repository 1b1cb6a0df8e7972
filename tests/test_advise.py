"""Advice for many ranges at once, from the kernel that there is."""

from __future__ import annotations

import mmap
import os
import re

import pytest

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
def test_all_ranges_in_a_few_calls(mapping):
    ranges = [(page * PAGE, PAGE) for page in range(0, 4096, 3)]

    assert advise(mapping, mmap.MADV_DONTNEED, ranges) == 1366 * PAGE
    assert gone(mapping) == list(range(0, 4096, 3))


@needs_it
def test_ranges_of_any_size(mapping):
    ranges = [(PAGE, 2 * PAGE), (100 * PAGE, 1000 * PAGE)]

    assert advise(mapping, mmap.MADV_DONTNEED, ranges) == 1002 * PAGE
    assert gone(mapping) == [1, 2, *range(100, 1100)]


@needs_it
@pytest.mark.parametrize("place", [0, 1000, 1024, 2047, 4095])
def test_it_ends_where_the_kernel_refuses(mapping, place):
    ranges = [(page * PAGE, PAGE) for page in range(4096)]
    ranges[place] = (ranges[place][0] + 1, PAGE)

    taken = advise(mapping, mmap.MADV_DONTNEED, ranges)

    assert taken == place * PAGE
    assert gone(mapping) == list(range(place))


@needs_it
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_gives_back_its_own_memory_only(mapping):
    child = os.fork()
    if not child:
        taken = advise(mapping, mmap.MADV_DONTNEED, [(0, PAGE), (PAGE, PAGE)])
        os._exit(0 if taken == 2 * PAGE and gone(mapping) == [0, 1] else 1)

    assert os.waitpid(child, 0)[1] == 0
    assert gone(mapping) == []


def test_a_kernel_that_does_not_know_it_takes_nothing(mapping, monkeypatch):
    monkeypatch.setattr(module, "_PIDFD_SELF", -1)

    assert advise(mapping, mmap.MADV_DONTNEED, [(0, PAGE), (PAGE, PAGE)]) == 0
    assert gone(mapping) == []


def test_what_cannot_be_written_to_is_left_alone():
    with mmap.mmap(-1, PAGE, prot=mmap.PROT_READ) as mapping:
        assert advise(mapping, mmap.MADV_DONTNEED, [(0, PAGE)]) == 0


def test_the_mapping_can_be_closed_at_once(mapping):
    advise(mapping, mmap.MADV_DONTNEED, [(0, PAGE), (PAGE, PAGE)])

    mapping.close()
