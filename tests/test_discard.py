from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from own_memory import lock, own

from balloon_plugin.hosts import discard
from balloon_plugin.hosts.discard import LOCK_HELD_FOR, Backing, give_back

MIB = 1 << 20
PAGE = 4096


@pytest.fixture
def file():
    fd = os.memfd_create("ram")
    yield fd
    os.close(fd)


@pytest.fixture
def a_mapping():
    made = []

    def make(size, fd=None):
        if fd is None:
            made.append(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE))
        else:
            os.ftruncate(fd, size)
            made.append(mmap.mmap(fd, size))
        made[-1][:] = b"\1" * size
        return made[-1]

    yield make
    for mapping in made:
        mapping.close()


def blocks(fd):
    """Return how many pages a file has."""
    return os.fstat(fd).st_blocks * 512 // PAGE


def pages_of(mapping):
    """Return which pages still hold what was written."""
    return [
        at // PAGE
        for at in range(0, len(mapping), PAGE)
        if mapping[at : at + 1] == b"\1"
    ]


def test_shared_pages_are_punched_out_of_their_file(a_mapping, file):
    mapping = a_mapping(16 * PAGE, file)
    backing = Backing(100 * PAGE, 16 * PAGE, mapping, file=file)

    assert give_back([backing], [(102, 3), (110, 1)]) == 4
    assert blocks(file) == 12
    assert pages_of(mapping) == [0, 1, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15]
    assert os.fstat(file).st_size == 16 * PAGE


def test_pages_of_a_file_on_disk_leave_the_disk(a_mapping, tmp_path):
    with (tmp_path / "ram").open("w+b") as disk:
        mapping = a_mapping(256 * PAGE, disk.fileno())
        mapping.flush()
        os.fsync(disk.fileno())
        before = blocks(disk.fileno())
        backing = Backing(0, 256 * PAGE, mapping, file=disk.fileno())

        assert give_back([backing], [(8, 64), (100, 100)]) == 164
        assert before - blocks(disk.fileno()) == 164
        assert pages_of(mapping) == [*range(8), *range(72, 100), *range(200, 256)]


def test_private_pages_are_dropped_from_their_mapping(a_mapping):
    mapping = a_mapping(1024 * PAGE)
    before = own("Anonymous")

    assert give_back([Backing(0, 1024 * PAGE, mapping)], [(24, 1000)]) == 1000
    assert before - own("Anonymous") == pytest.approx(1000 * PAGE, abs=100 * PAGE)
    assert pages_of(mapping) == list(range(24))


@pytest.mark.parametrize("size", [LOCK_HELD_FOR, LOCK_HELD_FOR + PAGE, 5 * MIB])
def test_long_runs_are_given_back_whole(a_mapping, file, size):
    shared = a_mapping(6 * MIB, file)
    private = a_mapping(6 * MIB)
    count = size // PAGE

    assert give_back([Backing(0, 6 * MIB, shared, file=file)], [(8, count)]) == count
    assert give_back([Backing(0, 6 * MIB, private)], [(8, count)]) == count
    left = [*range(8), *range(8 + count, 6 * MIB // PAGE)]
    assert pages_of(shared) == left
    assert pages_of(private) == left


def test_long_holes_do_not_hold_the_interpreter_lock(a_mapping, file, monkeypatch):
    mapping = a_mapping(4 * MIB, file)
    backing = Backing(0, 4 * MIB, mapping, file=file)
    punched = []
    monkeypatch.setattr(
        discard, "_fallocate", lambda *arguments: punched.append(arguments) or 0
    )

    give_back([backing], [(0, 2 * MIB // PAGE)])

    assert punched == [(file, 3, 0, 2 * MIB)]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_scattered_pages_are_given_back_too(
    a_mapping, file, monkeypatch, shared, known
):
    if not known:
        monkeypatch.setattr(discard, "advise", lambda *_: 0)
    mapping = a_mapping(4096 * PAGE, file if shared else None)
    backing = Backing(0, 4096 * PAGE, mapping, file=file if shared else None)

    assert give_back([backing], [(page, 1) for page in range(1, 4096, 2)]) == 2048
    assert pages_of(mapping) == list(range(0, 4096, 2))


@pytest.mark.parametrize("place", [0, 1, 4])
def test_one_that_is_refused_is_no_harm_to_the_others(a_mapping, place):
    mapping = a_mapping(10 * PAGE)
    pages = [0, 2, 4, 6, 8]
    lock(mapping, pages[place])

    given = give_back([Backing(0, 10 * PAGE, mapping)], [(page, 1) for page in pages])

    assert given == 4
    assert pages_of(mapping) == sorted({1, 3, 5, 7, 9, pages[place]})


def test_some_in_a_mapping_that_cannot_be_written_to(a_mapping, file):
    mapping = a_mapping(4 * PAGE, file)
    fixed = mmap.mmap(file, 4 * PAGE, prot=mmap.PROT_READ)

    assert give_back([Backing(0, 4 * PAGE, fixed, file=file)], [(0, 1), (2, 1)]) == 2
    assert pages_of(mapping) == [1, 3]
    fixed.close()


def test_a_region_may_begin_anywhere_in_mapping_and_file(a_mapping, file):
    mapping = a_mapping(16 * PAGE, file)
    part = mmap.mmap(file, 8 * PAGE, offset=4 * PAGE)
    backing = Backing(
        1000 * PAGE, 6 * PAGE, part, at=2 * PAGE, file=file, file_at=6 * PAGE
    )

    assert give_back([backing], [(1001, 2)]) == 2
    assert [at for at in range(16) if at not in pages_of(mapping)] == [7, 8]
    part.close()


def test_a_long_hole_begins_where_the_region_does(a_mapping, file):
    mapping = a_mapping(4 * MIB, file)
    backing = Backing(0, 3 * MIB, mapping, at=MIB, file=file, file_at=MIB)

    assert give_back([backing], [(1, 512)]) == 512
    assert pages_of(mapping) == [*range(257), *range(257 + 512, 1024)]


def test_runs_may_reach_over_several_regions(a_mapping, file):
    low, high = a_mapping(4 * PAGE), a_mapping(4 * PAGE)
    far = a_mapping(4 * PAGE, file)
    backings = [
        Backing(0, 4 * PAGE, low),
        Backing(4 * PAGE, 4 * PAGE, high),
        Backing(100 * PAGE, 4 * PAGE, far, file=file),
    ]

    assert give_back(backings, [(1, 1), (3, 2), (7, 94)]) == 5
    assert pages_of(low) == [0, 2]
    assert pages_of(high) == [1, 2]
    assert pages_of(far) == [1, 2, 3]


@pytest.mark.parametrize("run", [(0, 10), (14, 1), (15, 1000)])
def test_what_is_outside_is_left_alone(a_mapping, run):
    mapping = a_mapping(4 * PAGE)

    assert give_back([Backing(10 * PAGE, 4 * PAGE, mapping)], [run]) == 0
    assert pages_of(mapping) == [0, 1, 2, 3]


def test_nothing_is_given_back_of_nothing():
    assert give_back([], [(0, 1)]) == 0


def test_what_the_kernel_refuses_is_not_counted(a_mapping, file):
    mapping = a_mapping(4 * PAGE, file)
    with Path(f"/proc/self/fd/{file}").open("rb") as read_only:
        fixed = mmap.mmap(read_only.fileno(), 4 * PAGE, prot=mmap.PROT_READ)
        backing = Backing(0, 4 * PAGE, fixed, file=read_only.fileno())

        assert give_back([backing], [(0, 4)]) == 0
    assert pages_of(mapping) == [0, 1, 2, 3]
    fixed.close()


def test_a_mapping_that_refuses_may_have_a_file_that_does_not(a_mapping, file):
    mapping = a_mapping(4 * PAGE, file)
    fixed = mmap.mmap(file, 4 * PAGE, prot=mmap.PROT_READ)

    assert give_back([Backing(0, 4 * PAGE, fixed, file=file)], [(1, 2)]) == 2
    assert pages_of(mapping) == [0, 3]
    fixed.close()


def test_parts_of_huge_pages_are_kept(a_mapping, file):
    mapping = a_mapping(32 * PAGE, file)
    huge = 8 * PAGE
    backing = Backing(
        0, 30 * PAGE, mapping, at=PAGE, file=file, file_at=PAGE, page_size=huge
    )

    # In the file these are pages 4 to 25, and 30 to 31.
    assert give_back([backing], [(3, 22), (29, 1)]) == 16
    assert [at for at in range(32) if at not in pages_of(mapping)] == list(range(8, 24))


def test_pages_that_are_not_the_kernels_do_not_raise(a_mapping):
    backing = Backing(0, 4 * PAGE, a_mapping(8 * PAGE), at=512, page_size=512)

    assert give_back([backing], [(0, 1)]) == 0
