"""Guest memory that a front end shares, without a front end."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from balloon_plugin.events import MemoryRange
from balloon_plugin.hosts.vhost_user.files import RefusalError
from balloon_plugin.hosts.vhost_user.mapping import MappedMemory
from balloon_plugin.hosts.vhost_user.payloads import Region

PAGE = 4096
FILE = 16 * PAGE


@pytest.fixture
def share():
    """Give a function that makes a file; the descriptors it gave out are closed."""
    files = []

    def share(size=FILE):
        files.append(os.memfd_create("guest"))
        os.truncate(files[-1], size)
        return os.dup(files[-1])

    yield share
    for fd in files:
        os.close(fd)


@pytest.fixture
def memory():
    memory = MappedMemory()
    yield memory
    memory.clear()


@pytest.fixture
def blocks(monkeypatch):
    """Let files have blocks of so many bytes, as those of huge pages have."""
    return lambda size: monkeypatch.setattr(
        os, "fstatvfs", lambda _fd: SimpleNamespace(f_bsize=size)
    )


def test_a_region_is_what_the_front_end_says_and_no_more(memory, share, blocks):
    """On huge pages the mapping is larger."""
    blocks(4 * PAGE)
    memory.add(Region(0x10000, 2 * PAGE, 0, 5 * PAGE), share(), 8)

    assert memory.guest.ranges == (MemoryRange(0x10000, 2 * PAGE),)
    assert memory.host_page_size == 4 * PAGE


def test_small_blocks_are_given_back_by_the_page(memory, share, blocks):
    blocks(1024)
    memory.add(Region(0, FILE, 0, 0), share(), 8)

    assert memory.host_page_size == PAGE


def test_a_change_leaves_nothing_of_the_memory_before(memory, share):
    memory.replace([Region(0, FILE, 0, 0)], [share()])
    before, owned = memory.guest, memory._mapped[0]

    memory.replace([Region(0, FILE, 0, 0)], [share()])

    assert not before.covers(0, 1)
    assert owned.mapping.closed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(owned.fd)


@pytest.mark.parametrize(
    ("size", "offset", "fault"),
    [
        (PAGE + 1, 0, "whole pages"),
        (PAGE, 512, "whole pages"),
        (0, 0, "whole pages"),
        (FILE, PAGE, "ends at 0x11000 of a file of 0x10000 bytes"),
    ],
)
def test_a_region_that_cannot_be_changes_nothing(memory, share, size, offset, fault):
    memory.add(Region(0, FILE, 0, 0), share(), 8)
    before, fd = memory.guest, share()

    with pytest.raises(RefusalError, match=fault):
        memory.add(Region(FILE, size, FILE, offset), fd, 8)

    assert memory.guest is before
    os.close(fd)
