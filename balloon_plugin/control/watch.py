"""Looking at many guests again and again, while their daemons come and go.

Blocks while it looks; draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

from balloon_plugin.control.client import Client
from balloon_plugin.control.report import HEADS, cells, style
from balloon_plugin.errors import HostError

__all__ = ["Watch"]

_PATIENCE: Final = 2.0
"""Seconds that one daemon may keep the view of all others waiting."""


class Watch:
    """The guests behind some control sockets; a context manager.

    :param paths: the control sockets.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._sockets = [_Socket(path) for path in paths]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            each.hang_up()

    def look(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield the cells of each guest as they are now, and the colour of its line.

        Guests of a daemon that does not answer are shown as such; it is called again at
        the next look.
        """
        for each in self._sockets:
            yield from each.look()


class _Socket:
    """One control socket, and who was last seen behind it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._client: Client | None = None
        self._names = [str(path)]

    def look(self) -> Iterator[tuple[tuple[str, ...], str]]:
        try:
            found = self._ask()
        except HostError:
            self.hang_up()
            for name in self._names:
                yield (name, *["-"] * (len(HEADS) - 2), "no answer"), "yellow"
            return
        self._names = [status["id"] for status in found]
        for status in found:
            yield cells(status), style(status)

    def _ask(self) -> list[dict[str, Any]]:
        if self._client is None:
            self._client = Client(self._path, _PATIENCE)
        ask = self._client.execute
        return [
            ask("query-balloon-status", id=guest["id"])
            for guest in ask("query-balloon-guests")
        ]

    def hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
