"""The events of QMP: what changed in what a query shows.

Pure. An event is no copy of what happened in the device, which may be thousands of
things in a second, but the difference between two looks at it. After an event the next
look at that guest is a second later, which is the limit that QEMU sets to events that a
guest can cause; the last change is always told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from balloon_plugin.control.frames import line
from balloon_plugin.control.plain import plain_verdict
from balloon_plugin.events import (
    ActualWritten,
    DeviceReset,
    Event,
    GateChanged,
    GuestFault,
    PolicyChanged,
    StateLoaded,
    VerdictChanged,
)
from balloon_plugin.layouts import PAGE_SIZE
from balloon_plugin.status import Status

__all__ = ["INTERVAL", "News", "event_line", "may_be_news"]

INTERVAL: Final = 1.0
"""Seconds from an event of one guest to its next: none can flood the clients."""

_LOOK: Final = 0.1
"""Seconds from a look that found nothing to the next: it costs the device a query."""

_STIRRING = (
    ActualWritten,
    DeviceReset,
    GateChanged,
    GuestFault,
    PolicyChanged,
    StateLoaded,
    VerdictChanged,
)


def may_be_news(event: Event) -> bool:
    """Return whether there may be an event to tell after this one."""
    return isinstance(event, _STIRRING)


def event_line(name: str, data: dict[str, Any], at: float) -> bytes:
    """Return an event as it is sent.

    :param at: when it happened, in seconds since 1970.
    """
    seconds, rest = divmod(at, 1)
    timestamp = {"seconds": int(seconds), "microseconds": int(rest * 1e6)}
    return line({"timestamp": timestamp, "event": name, "data": data})


# --- the table ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    """One event.

    :ivar subject: what it is about; told when this is another than before, and
        something.
    :ivar data: what is told.
    """

    subject: Callable[[Status], object]
    data: Callable[[Status], dict[str, Any]]


def _verdict_data(status: Status) -> dict[str, Any]:
    plain = plain_verdict(status.verdict)
    newest = plain.pop("evidence")[-1:]
    return {"policy": status.policy} | plain | {"evidence": newest}


_NOTHING: Final = object()

_KINDS: Final = {
    "BALLOON_CHANGE": _Kind(
        lambda status: status.balloon_pages,
        lambda status: {"actual": (status.ram - status.balloon_pages) * PAGE_SIZE},
    ),
    "BALLOON_FAULT": _Kind(
        lambda status: status.faults or _NOTHING,
        lambda status: {"faults": status.faults, "last-fault": status.last_fault},
    ),
    "BALLOON_VERDICT": _Kind(
        lambda status: (
            status.policy,
            status.verdict.judgement,
            status.verdict.state,
            status.verdict.defects,
        ),
        _verdict_data,
    ),
}


class News:
    """What clients know of one guest.

    :param name: the guest's.
    :param status: what a query shows at the beginning; it is not told.

    :ivar due: the time from which the guest may be looked at again.
    """

    def __init__(self, name: str, status: Status) -> None:
        self._name = name
        self._known = status
        self.due = 0.0

    def look(self, status: Status, now: float) -> list[tuple[str, dict[str, Any]]]:
        """Return the events, each a name and its data, that have come about.

        :param status: what a query shows now.
        :param now: seconds of the clock that ``due`` is of.
        """
        before, self._known = self._known, status
        told = [
            (name, {"id": self._name} | kind.data(status))
            for name, kind in _KINDS.items()
            if kind.subject(status) not in (kind.subject(before), _NOTHING)
        ]
        self.due = now + (INTERVAL if told else _LOOK)
        return told
