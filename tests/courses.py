"""Runs of the comparison that a test can look into."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import Any

from balloon_plugin import make_device
from balloon_plugin.compare import acts
from balloon_plugin.compare.circumstances import find as circumstance
from balloon_plugin.compare.clerk import Phase
from balloon_plugin.compare.course import Course
from balloon_plugin.guests import find
from balloon_plugin.hookspecs import hookimpl


def course(guest, special="usual", policy="evidence", tell=None, *observers):
    """Return a course of one guest, by its name or not, which has not begun yet."""
    profile = find(guest) if isinstance(guest, str) else guest
    make = functools.partial(make_device, policy)
    special = circumstance(special)
    return Course(profile, make, special, acts.perform, observers, tell)


def go(whole):
    """Let a course take its course, and end."""
    with contextlib.closing(whole):
        whole.test()
        whole.ask(Phase.GROW, whole.circumstance.target)
        whole.ask(Phase.SHRINK, 0)
    return whole


@dataclass(frozen=True)
class Seen:
    """What was to be seen when an act was about to happen.

    :ivar turn: the act's turn.
    :ivar now: seconds.
    :ivar steps: of the guest.
    :ivar requested: what the user wanted.
    :ivar parked: pages that the guest missed.
    :ivar guest: the name of the guest that ran.
    :ivar events: names of the types of all events before.
    """

    turn: Any
    now: float
    steps: int
    requested: int
    parked: int
    guest: str
    events: tuple[str, ...]


class Spy:
    """Watches a course; its acts are noted instead of done, unless ``acting``."""

    def __init__(self, monkeypatch, *, acting=False):
        self.seen = []
        self.events = []
        self.steps_at = []
        self.running = None
        for act, do in acts.ACTS.items():
            note = self._noting(do if acting else None)
            monkeypatch.setitem(acts.ACTS, act, note)

    def _noting(self, do):
        def note(running, turn):
            self.seen.append(
                Seen(
                    turn,
                    running.host.now(),
                    running.guest.steps,
                    running.device.query().requested,
                    running.guest.parked_pages,
                    running.guest.profile.name,
                    tuple(type(event).__name__ for event in self.events),
                )
            )
            if do:
                do(running, turn)

        return note

    @hookimpl
    def balloon_event(self, event):
        self.events.append(event)

    def run(self, guest, special, policy="evidence"):
        """Run one guest, and return what was seen at its acts."""
        self.seen.clear()
        self.events.clear()
        go(course(guest, special, policy, None, self))
        return self.seen
