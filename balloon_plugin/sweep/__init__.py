"""A fleet under each policy: how often each goes wrong, and which one to choose."""

from __future__ import annotations

from balloon_plugin.sweep.decision import Decision, decide
from balloon_plugin.sweep.population import Population, populations
from balloon_plugin.sweep.result import Result
from balloon_plugin.sweep.sweep import POLICIES, sweep
from balloon_plugin.sweep.work import cluster, processes

__all__ = [
    "POLICIES",
    "Decision",
    "Population",
    "Result",
    "cluster",
    "decide",
    "populations",
    "processes",
    "sweep",
]
