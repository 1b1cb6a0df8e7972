"""The files that hold traces: plain, or compressed with zstd if the name ends so.

Knows lines and no events. A file that exists is never written to. What a crash leaves
is readable: a plain file has every event whose writing began before, since each goes to
the kernel at once; a compressed one has all up to a second before its last.
"""

from __future__ import annotations

import io
import itertools
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, Protocol

from balloon_plugin.errors import HostError
from balloon_plugin.zstd import find_zstd

__all__ = ["Sink", "create", "read"]

_log = logging.getLogger(__name__)

_ZSTD_NAME: Final = ".zst"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"

_EVERY: Final = 1.0
"""Seconds after which what was compressed goes to the kernel.

More often, and it compresses less: with each event a tenth as well.
"""

_PIECE: Final = 1 << 16
"""Bytes of a compressed file that are read at once."""

_LONGEST: Final = 1 << 26
"""Bytes of a line, which none reaches: that of a saved session has some millions.

What is no trace may have no lines at all, and a compressed one of zeros be small.
"""

_CUT_OFF: Final = "the trace is cut off: the disk is full"


class Sink(Protocol):
    """Where the lines of a trace go."""

    def write(self, line: bytes) -> None:
        """Write one line; raise ``OSError`` if that cannot be done whole."""

    def close(self) -> None:
        """Write what is still kept, and close the file."""


class _File(io.FileIO):
    """A new file, which ends for good where it once could not take all.

    There may be room again a moment later; but a trace with a gap is damaged, and one
    that is cut off is none the worse up to there.
    """

    _whole = True

    def write(self, data: Any) -> int:
        if not self._whole:
            raise OSError(_CUT_OFF)
        self._whole = False
        written = super().write(data)
        if written != len(data):
            raise OSError(_CUT_OFF)
        self._whole = True
        return written


class _Plain:
    """Lines as they are, each in the kernel's hands when ``write`` returns."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file

    def write(self, line: bytes) -> None:
        self._file.write(line)

    def close(self) -> None:
        self._file.close()


class _Compressed:
    """Lines through a compressor, flushed about once a second."""

    def __init__(self, file: io.FileIO, zstd: Any) -> None:
        options = {zstd.CompressionParameter.checksum_flag: True}
        self._file = file
        self._compressor = zstd.ZstdCompressor(options=options)
        self._flushed = time.monotonic()

    def write(self, line: bytes) -> None:
        mode, now = self._compressor.CONTINUE, time.monotonic()
        if now - self._flushed >= _EVERY:
            mode, self._flushed = self._compressor.FLUSH_BLOCK, now
        self._put(self._compressor.compress(line, mode))

    def close(self) -> None:
        with self._file:
            self._put(self._compressor.flush())

    def _put(self, data: bytes) -> None:
        # Even nothing would be too much for a file that could not take all before.
        if data:
            self._file.write(data)


class _Decompressed(io.RawIOBase):
    """What is in a compressed file, as far as it is there."""

    def __init__(self, file: IO[bytes], zstd: Any) -> None:
        self._file = file
        self._decompressor = zstd.ZstdDecompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any) -> int:
        data = b""
        while not data and not self._decompressor.eof:
            more = b""
            if self._decompressor.needs_input and not (more := self._file.read(_PIECE)):
                break
            data = self._decompressor.decompress(more, len(room))
        room[: len(data)] = data
        return len(data)


def create(path: Path) -> tuple[Path, Sink]:
    """Make a new file for a trace; return its path, too.

    If there is a file of this name, the first number that is free goes before the
    suffix: ``night.jsonl``, ``night.1.jsonl``. The log says so: who replays the one
    that was there sees another guest.

    :raises HostError: if it cannot be made, or zstd is needed and missing.
    """
    zstd = find_zstd() if path.name.endswith(_ZSTD_NAME) else None
    try:
        name, file = _new(path)
    except OSError as error:
        raise HostError(
            f"the trace {path} cannot be written: {error.strerror}"
        ) from error
    if name != path:
        _log.warning("%s is there already: the trace goes to %s", path, name)
    return name, _Plain(file) if zstd is None else _Compressed(file, zstd)


def _new(path: Path) -> tuple[Path, io.FileIO]:
    stem, dot, suffix = path.name.partition(".")
    for number in itertools.count():
        name = path.with_name(f"{stem}.{number}{dot}{suffix}") if number else path
        try:
            return name, _File(name, "x")
        except FileExistsError:
            continue
    raise AssertionError("there is always another number")


def read(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, decompressed if it is compressed, whatever its name.

    :raises HostError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield from _decompressed(file)
    except OSError as error:
        raise HostError(
            f"the trace {path} cannot be read: {error.strerror or error}"
        ) from error


def _decompressed(file: IO[bytes]) -> Iterator[bytes]:
    magic = file.read(len(_ZSTD_MAGIC))
    file.seek(0)
    if magic != _ZSTD_MAGIC:
        yield from _lines(file)
        return
    zstd = find_zstd()
    try:
        yield from _lines(io.BufferedReader(_Decompressed(file, zstd)))
    except zstd.ZstdError as error:
        raise HostError(
            f"the compressed trace is damaged: {error}; take another copy of it"
        ) from error


def _lines(file: IO[bytes] | io.BufferedReader) -> Iterator[bytes]:
    while line := file.readline(_LONGEST):
        if len(line) == _LONGEST:
            raise HostError(
                f"a line of {_LONGEST} bytes is in no trace: name a file that --record "
                "made"
            )
        yield line
