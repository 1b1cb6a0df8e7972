from __future__ import annotations

import mmap
import os
import subprocess
import sys
import textwrap

import pytest

from balloon_plugin.hosts import nets
from balloon_plugin.hosts.nets import Net

PAGE = mmap.PAGESIZE
PAGES = 8


@pytest.fixture
def file():
    fd = os.memfd_create("guest")
    os.ftruncate(fd, PAGES * PAGE)
    yield fd
    os.close(fd)


@pytest.fixture
def mapping(file):
    mapping = mmap.mmap(file, PAGES * PAGE)
    mapping[:] = b"x" * len(mapping)
    return mapping


def test_a_file_that_stays_is_never_torn(mapping):
    net = Net(mapping, PAGE)

    assert mapping[:] == b"x" * len(mapping)
    assert not net.torn


def test_what_the_file_lost_reads_as_zeros(mapping, file):
    net = Net(mapping, PAGE)
    os.ftruncate(file, 2 * PAGE)

    assert mapping[:] == b"x" * 2 * PAGE + bytes(6 * PAGE)
    assert net.torn


def test_what_the_file_lost_can_be_written_and_costs_the_file_nothing(mapping, file):
    net = Net(mapping, PAGE)
    os.ftruncate(file, 2 * PAGE)

    mapping[3 * PAGE] = 7

    assert net.torn
    assert mapping[3 * PAGE] == 7
    assert os.fstat(file).st_size == 2 * PAGE


def test_every_kind_of_access_is_caught(mapping, file):
    Net(mapping, PAGE)
    view = memoryview(mapping)
    words = view.cast("H")
    os.ftruncate(file, 0)

    assert bytes(view[:PAGE]) == bytes(PAGE)
    assert words[PAGE // 2] == 0
    assert words[PAGE : PAGE + 2].tolist() == [0, 0]
    view[3 * PAGE : 3 * PAGE + 2] = b"ab"
    assert b"".join([view[4 * PAGE - 2 : 4 * PAGE + 2]]) == bytes(4)
    words[5 * PAGE // 2] = 1
    assert view[3 * PAGE : 3 * PAGE + 2] == b"ab"
    words.release()
    view.release()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_only_the_one_whose_file_shrank_is_torn(place):
    files = [os.memfd_create("guest") for _ in range(3)]
    for fd in files:
        os.ftruncate(fd, PAGE)
    mappings = [mmap.mmap(fd, PAGE) for fd in files]
    # Often each lies right below the one before: ask the lowest first.
    stretched = [Net(mapping, PAGE) for mapping in reversed(mappings)]
    os.ftruncate(files[place], 0)

    assert [mapping[0] for mapping in mappings] == [0, 0, 0]

    assert [net.torn for net in reversed(stretched)] == [at == place for at in range(3)]
    for fd in files:
        os.close(fd)


def test_a_large_page_is_lost_as_a_whole(mapping, file):
    # Two pages of the machine stand for a large one, which can only be replaced whole.
    net = Net(mapping, 2 * PAGE)
    os.ftruncate(file, 3 * PAGE)

    assert mapping[3 * PAGE] == 0

    assert net.torn
    assert mapping[2 * PAGE] == 0
    assert mapping[2 * PAGE - 1] == ord("x")


def test_nets_go_with_their_mappings(file):
    before = dict(nets._nets)
    closed, dropped = mmap.mmap(file, PAGE), mmap.mmap(file, PAGE)
    net = Net(closed, PAGE)
    Net(dropped, PAGE)
    assert len(nets._nets) == len(before) + 2

    net.close()
    del dropped

    assert nets._nets == before
    net.close()


OTHERS = """
import mmap, os, sys
from balloon_plugin.hosts.nets import Net
def mapped():
    fd = os.memfd_create("guest")
    os.ftruncate(fd, mmap.PAGESIZE)
    return fd, mmap.mmap(fd, mmap.PAGESIZE)
fd, mapping = mapped()
net = Net(mapping, mmap.PAGESIZE)
os.ftruncate(fd, 0)
assert mapping[0] == 0 and net.torn
print("caught", flush=True)
fd, mapping = mapped()
os.ftruncate(fd, 0)
mapping[0]
"""


def test_bus_errors_of_others_are_what_they_were():
    done = subprocess.run(  # noqa: S603 - the script above
        [sys.executable, "-c", textwrap.dedent(OTHERS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )

    assert done.stdout == "caught\n"
    assert done.returncode == -7
