"""How fast Python is at the moment: the time of a hook call with one plugin.

Aims are in seconds, and a shared machine has fewer of them to give one minute than the
next. So between the rounds of what has an aim, hook calls are measured as well.
"""

from __future__ import annotations

import pluggy
from contest import timed

from balloon_plugin import hookimpl, hookspecs

REFERENCE = 1.356e-6
"""Seconds of a hook call where the aims were set (pluggy 1.7, Python 3.11, no load)."""

CALLS = 100


class _Nothing:
    @hookimpl
    def policy_observe(self, event):
        """Look away."""


def make_calls():
    """Return what makes a hundred hook calls."""
    plugins = pluggy.PluginManager(hookspecs.PROJECT)
    plugins.add_hookspecs(hookspecs)
    plugins.register(_Nothing())
    hook = plugins.hook.policy_observe

    def calls():
        for _ in range(CALLS):
            hook(event=None)

    return calls


class Yardstick:
    """Hook calls, measured now and then.

    :ivar best: the least that one took, in seconds.
    """

    def __init__(self):
        self._calls = make_calls()
        self.best = float("inf")

    def look(self):
        """Measure once more."""
        for _ in range(3):
            self.best = min(self.best, timed(self._calls) / CALLS)
