"""Initial RAM file systems for Linux guests, written in pure Python.

Knows the "newc" cpio format that the kernel unpacks at boot (kernel documentation,
``driver-api/early-userspace/buffer-format``) and nothing of what is packed. Neither
root rights nor the cpio program are needed: a device node is only a header here. The
same entries give the same bytes.
"""

from __future__ import annotations

import gzip
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

__all__ = ["Entry", "console", "directory", "file", "pack"]

_MAGIC: Final = b"070701"
_TRAILER: Final = "TRAILER!!!"

_FAST: Final = 1
"""gzip level: the archive is read once, seconds after it was written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive.

    :ivar name: its path from the root, without a leading slash.
    :ivar mode: file type and permission bits, as in ``st_mode``.
    :ivar data: the content of a regular file.
    :ivar device: major and minor number of a device node.
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str) -> Entry:
    """Make a directory."""
    return Entry(name, stat.S_IFDIR | 0o755)


def file(name: str, data: bytes, *, executable: bool = False) -> Entry:
    """Make a regular file."""
    return Entry(name, stat.S_IFREG | (0o755 if executable else 0o644), data)


def console() -> Entry:
    """Make ``/dev/console``, which the kernel opens for init before init can mount."""
    return Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))


def pack(entries: Iterable[Entry]) -> bytes:
    """Return a gzipped archive of the entries and of the directories that they need.

    :param entries: in any order; no two with the same name.
    """
    complete = [*_with_parents(entries), Entry(_TRAILER, 0)]
    archive = b"".join(
        _record(inode, entry) for inode, entry in enumerate(complete, start=1)
    )
    return gzip.compress(archive, _FAST, mtime=0)


def _with_parents(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries, each after its directories: the kernel makes none itself."""
    made = set()
    for entry in entries:
        for parent in reversed(PurePosixPath(entry.name).parents[:-1]):
            if str(parent) not in made:
                made.add(str(parent))
                yield directory(str(parent))
        if entry.name not in made:
            made.add(entry.name)
            yield entry


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    # Inode, mode, uid, gid, links, mtime and size; major and minor number of the device
    # that holds it and of the device that it is; length of the name, checksum (unused).
    # Each has an inode of its own, or the kernel takes two for links to one file.
    fields = (
        *(inode, entry.mode, 0, 0, 1, 0, len(entry.data)),
        *(0, 0, *entry.device, len(name), 0),
    )
    header = _MAGIC + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    """Fill up to a multiple of four, by which every part is aligned."""
    return data + bytes(-len(data) % 4)
