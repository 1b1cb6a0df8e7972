"""The process of one shadow: a trace comes in, what its policy makes of it goes out.

``python -m balloon_plugin.watcher POLICY``, started by :mod:`balloon_plugin.watch`. It
is a process of its own so that a policy which hangs, crashes or takes all the time it
can get costs the guest nothing: a thread would hold the interpreter's lock.

Lines out are those of a trace, in which the time is the number of events seen so far;
or that number alone, where nothing changed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import BinaryIO, Final

from balloon_plugin.events import DeviceReset, Event, GateChanged
from balloon_plugin.shadow import Shadow, ShadowStatus
from balloon_plugin.trace.lines import Concluded, Entry, Moment, decode, encode

__all__ = ["main"]

_NICE: Final = 10
"""How far a shadow stands back where processors are scarce: the guest comes first."""

_LOOK: Final = 1.0
"""Seconds between two looks whether the one who started it is still there."""


def main() -> None:
    """Follow the trace on standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    # What a policy prints goes where errors go, and not between our lines.
    with os.fdopen(os.dup(1), "wb", 0) as out:
        os.dup2(2, 1)
        _follow(sys.argv[1], sys.stdin.buffer, out)


def _end_with(parent: int) -> None:
    """End when the parent does, even if a policy hangs and does not see it go."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


def _follow(policy: str, lines: BinaryIO, out: BinaryIO) -> None:
    header, moments = decode(lines)
    news: list[Event] = []
    shadow = Shadow(policy, offered=lambda: header.offers, tell=news.append)
    before = None
    for seen, moment in enumerate(moments, 1):
        news.clear()
        if not isinstance(moment.entry, Concluded):
            shadow.balloon_event(moment.entry)
        status = shadow.status()
        # What is told with a reset is news of the event before it.
        resets = [moment.entry] if isinstance(moment.entry, DeviceReset) else []
        told = [*news, *resets, *_changes(before, status)]
        before = status
        parts = [encode(Moment(seen, entry)) for entry in told]
        out.write(b"".join(parts) or b"%d\n" % seen)


def _changes(before: ShadowStatus | None, status: ShadowStatus) -> list[Entry]:
    """Return what the other side has to know of a status."""
    changes: list[Entry] = []
    if before is None or before.verdict != status.verdict:
        changes.append(Concluded(status.verdict))
    if before is None or before.gate != status.gate:
        changes.append(GateChanged(status.gate))
    return changes


if __name__ == "__main__":
    main()
