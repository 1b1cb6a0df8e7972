"""A value in a file that is whole whenever this process is killed.

Knows JSON and files, nothing of what is in them. The first line has the whole value,
each further line a change to it (:mod:`~balloon_plugin.hosts.changes`), with a checksum
before each. A line that a kill cut off was never acted upon, and is dropped. When the
changes have grown beyond the value, the file is written anew beside the old one and
takes its place.

This withstands the death of the process at any moment, SIGKILL included, since what was
written is the kernel's then. It is not made for a loss of power, which ends the guests
as well: nothing is flushed to a disk, so that saving costs microseconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import zlib
from pathlib import Path
from typing import Any, Final

from balloon_plugin.errors import HostError
from balloon_plugin.hosts import changes

__all__ = ["StateError", "StateFile"]

_SLACK: Final = 1 << 16
"""Bytes of changes that a small value may gather before it is written anew."""


class StateError(HostError):
    """What was kept cannot be used, as long as nobody does something about it."""


class StateFile:
    """One value, kept in a file.

    :param path: of the file; another beside it, with ``.new`` after its name, comes and
        goes.
    :raises StateError: if it is damaged or cannot be read.
    :raises HostError: if it is in use by another process, or cannot be.

    :ivar value: what is kept, or ``None`` as long as there is nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = _locked(path)
        self._fd: int | None = None
        self._room = 0
        try:
            self.value = _read(path)
        except HostError:
            os.close(self._lock)
            raise

    def keep(self, value: dict[str, Any]) -> None:
        """Keep a value in place of the one before; if it is the same, do nothing.

        :raises HostError: if it cannot be written; what was kept before still is.
        """
        change = changes.difference(self.value, value)
        if change is None:
            return
        try:
            self._write(value, change)
        except OSError as error:
            self._forget()
            raise HostError(
                f"{self._path} cannot be written: {error.strerror}; make room for it"
            ) from error
        self.value = value

    def close(self) -> None:
        """Let go of the file, which stays."""
        self._forget()
        os.close(self._lock)

    def _write(self, value: dict[str, Any], change: changes.Change) -> None:
        line = _line(change)
        if self._fd is None or len(line) > self._room:
            self._replace(_line(value))
        else:
            self._room -= len(line)
            _write_all(self._fd, line)

    def _replace(self, line: bytes) -> None:
        self._forget()
        new = self._path.with_name(f"{self._path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(new, flags, 0o600)
        _write_all(self._fd, line)
        new.replace(self._path)
        self._room = max(_SLACK, len(line))

    def _forget(self) -> None:
        """Append no more: the next value is written as a whole."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _line(value: object) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _locked(path: Path) -> int:
    """Return a file descriptor that keeps other daemons away.

    The file itself is replaced now and then, so a lock has a file of its own.
    """
    try:
        fd = os.open(path.with_name(f"{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise HostError(
            f"the state {path} cannot be kept: {error.strerror}; name a folder that is "
            "there and can be written to"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise HostError(
            f"the state {path} is in use: stop that daemon or choose another place"
        ) from error
    return fd


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(
            f"the state in {path} cannot be read: {error.strerror}; mend that, or "
            "choose another place"
        ) from error
    # What has no end was being written when the process died.
    *lines, _cut_off = data.split(b"\n")
    value: object = None
    # A guest that came from elsewhere may have brought what is nested too deep.
    with contextlib.suppress(ValueError, RecursionError):
        for number, line in enumerate(lines):
            parsed = _parsed(line)
            value = changes.apply(parsed, value) if number else parsed
            if not isinstance(value, dict):
                break
        else:
            if isinstance(value, dict):
                return value
    raise StateError(
        f"the state in {path} is damaged: remove it, and the guest's driver is judged "
        "anew when it starts again"
    )


def _parsed(line: bytes) -> object:
    """Return what is in a line.

    :raises ValueError: if it is damaged.
    """
    checksum, _, text = line.partition(b" ")
    if int(checksum, 16) != zlib.crc32(text):
        message = "the checksum is wrong"
        raise ValueError(message)
    return json.loads(text)
