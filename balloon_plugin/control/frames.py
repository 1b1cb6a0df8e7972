"""Bytes of one client cut into messages, and messages made into bytes.

Pure: nothing here knows a socket, a device, or what a message says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["MAX_MESSAGE", "Frames", "line"]

MAX_MESSAGE: Final = 65536
"""Bytes of one command; a client whose command has no end by then is cut off."""

_QUOTE, _BACKSLASH, _NEWLINE = b'"\\\n'


def line(message: dict[str, Any]) -> bytes:
    """Return a message as it is sent: JSON on one line.

    What a host or a plugin put where a text should be is sent as one.
    """
    return json.dumps(message, default=str).encode() + b"\r\n"


class Frames:
    """Cuts what a client sends into messages, by their brackets.

    QMP knows no other end of a message: QEMU's own client sends none, people at a
    terminal send new lines, also in the middle of one. What stands outside brackets, or
    breaks off in a string, is a message up to the end of the line, and no JSON.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._depth = 0
        self._quoted = self._escaped = False

    def __len__(self) -> int:
        """Return the size of a message whose end has not come."""
        return len(self._pending)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes as they come; yield the messages that are complete with them."""
        for byte in data:
            self._pending.append(byte)
            if self._ends(byte):
                yield self.take()

    def take(self) -> bytes:
        """Return what has come of a message, and expect the next."""
        message = bytes(self._pending)
        self._pending.clear()
        self._depth = 0
        self._quoted = self._escaped = False
        return message

    def _ends(self, byte: int) -> bool:
        if self._quoted:
            self._quoted = self._escaped or byte != _QUOTE
            self._escaped = byte == _BACKSLASH and not self._escaped
            return byte == _NEWLINE
        if byte == _QUOTE:
            self._quoted = True
        elif byte in b"[{":
            self._depth += 1
        elif byte in b"]}":
            self._depth -= 1
            return self._depth <= 0
        return byte == _NEWLINE and not self._depth
