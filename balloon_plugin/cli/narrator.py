"""What ``serve`` tells an operator: the news of each guest, a line for each.

A guest that is at fault all the time must not fill the disk that holds the log.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

from balloon_plugin import narrate, show
from balloon_plugin.calls import Device
from balloon_plugin.events import Event, TimePassed
from balloon_plugin.hookspecs import hookimpl

__all__ = ["narrated", "tell"]

_MOST: Final = 5
"""Lines about events of one kind from one tick of a device to the next, a second."""


def tell(name: str, text: str) -> None:
    """Tell an operator something of one guest."""
    show.prose(f"{name}: {text}", hang=2)


class _Narrator:
    """An observer that tells an operator the news of one device."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts: Counter[type[Event]] = Counter()

    @hookimpl
    def balloon_event(self, event: Event) -> None:
        """Tell an event, or count it if there are too many of its kind."""
        if isinstance(event, TimePassed):
            self.tell_rest()
        elif narrate.is_news(event):
            self._counts[type(event)] += 1
            if self._counts[type(event)] <= _MOST:
                tell(self._name, narrate.sentence(event))

    def tell_rest(self) -> None:
        """Tell how many events were only counted, and begin anew."""
        counts, self._counts = self._counts, Counter()
        for kind, count in counts.items():
            if count > _MOST:
                tell(self._name, f"{count - _MOST} times more {kind.__name__}")


@contextlib.contextmanager
def narrated(name: str, device: Device) -> Iterator[None]:
    """Tell the news of a device, except of how it was made and of its end."""
    narrator = _Narrator(name)
    device.plugins.register(narrator)
    try:
        yield
    finally:
        device.plugins.unregister(narrator)
        narrator.tell_rest()
