"""This process's own memory: how much it is, and how to lock a page of it."""

from __future__ import annotations

import ctypes
from pathlib import Path

PAGE = 4096

_libc = ctypes.CDLL(None, use_errno=True)


def own(name):
    """Return a count of this process's memory, in bytes.

    The kernel counts page by page for it. Cheaper counts (``statm``) lag behind by a
    number of pages for each processor.
    """
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def lock(mapping, page):
    """Lock a page in memory, which the kernel does not drop then."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping)) + page * PAGE
    assert _libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(PAGE)) == 0
