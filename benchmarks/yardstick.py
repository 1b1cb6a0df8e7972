"""How fast Python is at the moment: the time of a hook call with one plugin.

Aims are in seconds, and a shared machine may have twice as many of them one minute and
half as many the next. So each aim is judged beside a hook call of the same moment.
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


def hook_call():
    """Return how many seconds a hook call takes now."""
    calls = make_calls()
    return min(timed(calls) for _ in range(50)) / CALLS
