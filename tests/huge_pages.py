"""Huge pages of the real kernel, for tests that give them back.

The machine has one pool for everybody, usually an empty one. A test says how many pages
it needs. Root has them made, and the pool becomes as large as it was when the test is
over. One test at a time has pages: others of this project wait, in whatever process.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from pathlib import Path

from own_memory import own

from balloon_plugin.errors import HostError

HUGE = 2 << 20
"""Bytes of a huge page."""

PIECES = HUGE // 4096
"""Pages of 4 KiB in it."""

_POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
_NUMBER = _POOL / "nr_hugepages"
_SHMEM = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")


# --- the pool -----------------------------------------------------------------------


def free():
    """Return how many huge pages of the pool are free."""
    return _read("free_hugepages")


def reserved():
    """Return how many of those are free for somebody in particular."""
    return _read("resv_hugepages")


def a_huge_memfd(size):
    fd = os.memfd_create("guest", os.MFD_HUGETLB | os.MFD_HUGE_2MB)
    os.ftruncate(fd, size)
    return fd


def held(fd):
    """Return how many huge pages a file has."""
    return os.fstat(fd).st_blocks * 512 // HUGE


@contextlib.contextmanager
def pool_of(count):
    """Have so many huge pages.

    :raises HostError: if they cannot be had, with what to do.
    """
    with _locked(_NUMBER), contextlib.ExitStack() as stack:
        missing = count - (free() - reserved())
        if missing > 0:
            now = _read("nr_hugepages")
            stack.enter_context(_changed(_NUMBER, str(now), str(now + missing)))
        if free() - reserved() < count:
            raise HostError(f"{count} huge pages of 2 MiB are not to be had here")
        yield


# --- transparent ones ---------------------------------------------------------------


@contextlib.contextmanager
def shared_transparently():
    """Have the kernel use huge pages for shared memory that asks for them.

    :raises HostError: if it does not, with what to do.
    """
    with _locked(_SHMEM), contextlib.ExitStack() as stack:
        now = _SHMEM.read_text().partition("[")[2].partition("]")[0]
        if now in ("never", "deny"):
            stack.enter_context(_changed(_SHMEM, now, "advise"))
        yield


def fill_on_huge_pages(mapping, counter):
    """Fill private or shared memory with ones, on transparent huge pages.

    :param counter: what they count in, of this process's memory.
    :raises HostError: if it is not on huge pages.
    """
    with contextlib.suppress(OSError):
        mapping.madvise(mmap.MADV_HUGEPAGE)
    mapping[:] = b"\1" * len(mapping)
    if own(counter) < len(mapping) - HUGE:
        raise HostError("the kernel has no transparent huge pages for who asks")


# --- what is changed, and put back --------------------------------------------------


def _read(name):
    return int((_POOL / name).read_text())


@contextlib.contextmanager
def _locked(path):
    try:
        file = path.open()
    except OSError as error:
        raise HostError(f"this kernel has no such huge pages: {error}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _changed(path, before, wanted):
    try:
        path.write_text(wanted)
    except OSError as error:
        message = f"huge pages are needed: as root, echo {wanted} > {path}"
        raise HostError(message) from error
    try:
        yield
    finally:
        path.write_text(before)
