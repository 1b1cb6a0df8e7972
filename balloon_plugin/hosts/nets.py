"""Nets under mappings: a file that somebody else shrinks must not end this process.

Knows mappings and signals, nothing of guests. To touch a page that a mapped file no
longer has, or that the kernel cannot provide, is a bus error (``SIGBUS``), which ends
the process with all the guests that it serves. No check beforehand helps: the file can
shrink right after it. So the fault itself is caught. Its page, and only that, becomes
anonymous memory of this process's own, the access that faulted goes on and finds
zeros, and the net says that it was :attr:`~Net.torn`.

Python's own :mod:`signal` cannot do it: it runs handlers between two instructions of
the interpreter, and the access never ends. A callback of :mod:`ctypes` runs at once,
inside the access. That is sound because whoever touches guest memory is copying bytes,
holds the interpreter's lock, and has no structure of the interpreter half changed.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import signal
import weakref
from typing import Final

__all__ = ["Net"]

_SA_SIGINFO: Final = 4
_MAP_FIXED: Final = 0x10
_PLAIN: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_READ_WRITE: Final = mmap.PROT_READ | mmap.PROT_WRITE

_FOREIGN: Final = ("alpha", "mips", "s390", "sparc")
"""Machines on which Linux has other numbers or structures than those declared here."""


class Net:
    """Keeps the process alive when one mapping loses pages under it.

    :param mapping: of a file that somebody else can shrink.
    :param page_size: of its pages, in bytes.

    :ivar torn: whether a page was lost: what was read since may be zeros that nobody
        wrote, and what was written may be lost.
    """

    def __init__(self, mapping: mmap.mmap, page_size: int) -> None:
        self.torn = False
        self._page_size = page_size
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        self._end = self._start + -(-len(mapping) // page_size) * page_size
        _stand_by()
        _nets[self._start] = self
        self._gone = weakref.finalize(mapping, _nets.pop, self._start)
        self._gone.atexit = False

    def close(self) -> None:
        """Take the net away: the mapping was closed."""
        self._gone()

    def catch(self, address: int) -> bool:
        """Put a page where one was lost; return whether it was in this mapping.

        Called in a signal handler, inside an access to the mapping.
        """
        if not self._start <= address < self._end:
            return False
        self.torn = True
        page = address - (address - self._start) % self._page_size
        placed = _libc.mmap(
            page, self._page_size, _READ_WRITE, _PLAIN | _MAP_FIXED, -1, 0
        )
        return bool(placed == page)


_nets: Final[dict[int, Net]] = {}
"""Every net by the address of its mapping; of the process, as signal handlers are."""


# --- the signal ---------------------------------------------------------------------


class _SigInfo(ctypes.Structure):
    """The beginning of ``siginfo_t``."""

    _fields_ = (("numbers", ctypes.c_int * 3), ("address", ctypes.c_void_p))


class _SigAction(ctypes.Structure):
    """``struct sigaction`` of glibc and musl."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * (1024 // (8 * ctypes.sizeof(ctypes.c_ulong)))),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


# Unlike CDLL, this one keeps the interpreter's lock: nobody may come in between.
_libc = ctypes.PyDLL(None)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)

_before = _SigAction()


def _on_bus_error(_number: int, info: ctypes._Pointer[_SigInfo], _context: int) -> None:
    """Let the access that faulted go on, or fail as it would without us."""
    caught = False
    try:
        address = info.contents.address or 0
        caught = any(net.catch(address) for net in _nets.values())
    finally:
        # The access is repeated when this returns: without the page it would fault
        # again and again.
        if not caught:
            _libc.sigaction(signal.SIGBUS, ctypes.byref(_before), None)


_handler = ctypes.CFUNCTYPE(
    None, ctypes.c_int, ctypes.POINTER(_SigInfo), ctypes.c_void_p
)(_on_bus_error)


@functools.cache
def _stand_by() -> None:
    """Take over the signal, once, on machines whose structures are known here."""
    if platform.machine().startswith(_FOREIGN):
        return
    address = ctypes.cast(_handler, ctypes.c_void_p).value
    action = _SigAction(address, flags=_SA_SIGINFO)
    _libc.sigaction(signal.SIGBUS, ctypes.byref(action), ctypes.byref(_before))
