"""The bare system calls that no device can do without.

To call them takes a little of its own in Python: see :func:`empty_call`.
"""

from __future__ import annotations

import ctypes
import os

from machine import PAGE

from balloon_plugin.pages import merge

_PUNCH_HOLE_AND_KEEP_SIZE = 3

_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def page_by_page(fd, batch):
    """Punch a hole for each page, in the order in which they come, as QEMU does."""
    for pfn in batch:
        _fallocate(fd, _PUNCH_HOLE_AND_KEEP_SIZE, pfn * PAGE, PAGE)


def merged(fd, batch):
    """Punch a hole for each run of pages."""
    for first, count in merge(batch):
        _fallocate(fd, _PUNCH_HOLE_AND_KEEP_SIZE, first * PAGE, count * PAGE)


def empty_call():
    """Make a call that the kernel refuses at once."""
    _fallocate(-1, _PUNCH_HOLE_AND_KEEP_SIZE, 0, PAGE)


def pages_of(fd):
    """Return how many pages of a memfd exist."""
    return os.fstat(fd).st_blocks * 512 // PAGE
