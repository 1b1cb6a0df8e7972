"""Files that a front end shares, mapped into this process.

Knows files and mappings; nothing of messages, and not what is in them. The front end
can shrink a file, so below each mapping is a net (:mod:`~balloon_plugin.hosts.nets`).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import stat
import sys
from typing import Final

from balloon_plugin.hosts.nets import Net

__all__ = ["RefusalError", "Window", "file_size", "map_shared"]

_NO_DUPLICATE: Final = {"trackfd": False} if sys.version_info >= (3, 13) else {}
"""Newer Pythons can map without a file descriptor of their own."""

_MAP_NORESERVE: Final = getattr(mmap, "MAP_NORESERVE", 0x4000)
"""Python has a name for it from 3.13 on; Linux has this number on most machines."""

_FUSE: Final = 0x65735546
"""``FUSE_SUPER_MAGIC`` (statfs(2)): whoever serves the file can let a reader wait."""

_libc = ctypes.CDLL(None, use_errno=True)


class RefusalError(Exception):
    """What the front end asks for cannot be done; the text is a sentence."""


class Window:
    """A part of a file that a front end shares, which is no guest memory.

    :param fd: the file; it stays the caller's.
    :param offset: of the part in the file, in bytes.
    :param size: of the part, in bytes.
    :param what: it is, for messages.
    :raises RefusalError: if it cannot be mapped.
    """

    def __init__(self, fd: int, offset: int, size: int, what: str) -> None:
        end = offset + size
        if not size or end > file_size(fd):
            raise RefusalError(f"{what} of {size:#x} bytes is not in its file")
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        self._mapping = map_shared(fd, end - start, start)
        self._net = Net(self._mapping, mmap.PAGESIZE)
        self.view = memoryview(self._mapping)[offset - start :]
        """The part."""

    @property
    def torn(self) -> bool:
        """Whether the front end took some of it away while it was in use."""
        return self._net.torn

    def close(self) -> None:
        """Unmap it, or leave it to the last view if somebody still holds one."""
        self.view.release()
        with contextlib.suppress(BufferError):
            self._mapping.close()
            self._net.close()


def map_shared(fd: int, length: int, offset: int) -> mmap.mmap:
    """Map a part of a file that begins at a page.

    Nothing is reserved for it. On huge pages the kernel would otherwise set one aside
    for each hole in the file: what the balloon gave back would be of no use to others
    as soon as the file is mapped anew, or could not be mapped, if they use it already.

    :raises RefusalError: if it cannot be mapped.
    """
    flags = mmap.MAP_SHARED | _MAP_NORESERVE
    try:
        return mmap.mmap(fd, length, flags, offset=offset, **_NO_DUPLICATE)
    except (OSError, ValueError, OverflowError) as error:
        raise RefusalError(f"a file cannot be mapped: {error}") from error


def file_size(fd: int) -> int:
    """Return the bytes of a file that can be mapped and cannot make a reader wait.

    :raises RefusalError: if it is none.
    """
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode):
        raise RefusalError("memory comes with something that is no file")
    if _file_system(fd) == _FUSE:
        raise RefusalError("memory is a file of another process (FUSE)")
    return about.st_size


def _file_system(fd: int) -> int:
    """Return the kind of a file's file system, the first word of ``struct statfs``."""
    about = (ctypes.c_long * 64)()
    return about[0] if _libc.fstatfs(fd, about) == 0 else 0
