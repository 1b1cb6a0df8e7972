"""Advice for many parts of a mapping in one system call.

``process_madvise(2)`` takes a vector of ranges, and any advice if they are the caller's
own. Where nothing can be merged, one call for each page costs more than the kernel's
work: 1.3 times on a shared memfd, 2.6 times on private memory, measured. There are as
many ranges as pages then, so what is done for each is a few operations on numbers.

It needs Linux 6.14, for ``PIDFD_SELF``: an ordinary descriptor of this process is a
descriptor of the parent after a fork, whose memory it would then discard. Older kernels
say that there is no such descriptor, and whoever asked goes on range by range.
"""

from __future__ import annotations

import ctypes
import mmap
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from balloon_plugin.events import Run
from balloon_plugin.layouts import PAGE_SIZE
from balloon_plugin.pages import total

__all__ = ["advise"]

_SYS_PROCESS_MADVISE: Final = 440
_PIDFD_SELF: Final = -10000
_IOV_MAX: Final = 1024
"""Ranges in one call (``UIO_MAXIOV``)."""
_IOVEC: Final = 16
"""Bytes of a ``struct iovec`` on the 64-bit machines that this runs on."""

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_uint,
)


def advise(mapping: mmap.mmap, advice: int, runs: Sequence[Run], page_0: int) -> int:
    """Give the kernel advice about parts of a mapping, in order.

    The interpreter lock is free meanwhile.

    :param runs: of pages of 4 KiB, all in the mapping.
    :param page_0: where in the mapping the page number 0 would be, in bytes.
    :returns: how many of the runs the kernel took, from the first on, before it
        refused; 0 if it knows no such call, or the mapping cannot be written to.
    """
    try:
        base = ctypes.addressof(ctypes.c_char.from_buffer(mapping)) + page_0
    except TypeError:
        return 0  # ctypes finds the address of what can be written to only
    vector = array("Q", bytes(_IOVEC * len(runs)))
    vector[::2] = array("Q", [base + page * PAGE_SIZE for page, _ in runs])
    vector[1::2] = array("Q", [count * PAGE_SIZE for _, count in runs])
    address, _ = vector.buffer_info()
    for first in range(0, len(runs), _IOV_MAX):
        part = runs[first : first + _IOV_MAX]
        taken: int = _syscall(
            _SYS_PROCESS_MADVISE,
            _PIDFD_SELF,
            address + first * _IOVEC,
            len(part),
            advice,
            0,
        )
        if taken < total(part) * PAGE_SIZE:
            ends = list(accumulate(count * PAGE_SIZE for _, count in part))
            return first + bisect_right(ends, taken)
    return len(runs)
