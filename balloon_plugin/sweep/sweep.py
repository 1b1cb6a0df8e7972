"""A sweep: draw guests from a population, and put each of them under every policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, TypeAlias

from balloon_plugin.compare import Row
from balloon_plugin.errors import HostError
from balloon_plugin.manager import make_policy
from balloon_plugin.sweep import population as populations
from balloon_plugin.sweep import work
from balloon_plugin.sweep.draws import draw
from balloon_plugin.sweep.journal import Journal
from balloon_plugin.sweep.population import Population
from balloon_plugin.sweep.result import Outcome, Result
from balloon_plugin.sweep.work import Task

__all__ = ["POLICIES", "Progress", "sweep"]

POLICIES: Final = ("none", "probe", "feature-bit", "evidence")
"""Those that come with this package."""

Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many runs are done, and how many there are to do."""


def sweep(  # noqa: PLR0913 - all but the first have a default that does
    population: str | Path | Population = populations.DEFAULT,
    policies: Sequence[str] = POLICIES,
    *,
    runs: int = 10_000,
    seed: int = 1,
    executor: Executor | None = None,
    resume: Path | None = None,
    progress: Progress = lambda _done, _all: None,
) -> Result:
    """Draw guests from a population, and put each of them under every policy.

    The result depends on nothing but the population, the policies, ``runs`` and
    ``seed``: not on where it runs, nor on how often it was interrupted.

    :param population: its name, the path of its file, or itself.
    :param policies: policies with their options, each named once.
    :param runs: how many guests are drawn, 2 or more.
    :param seed: of the dice.
    :param executor: where to run; ``None`` to run in this process.
    :param resume: a file of finished runs, to take from and to add to.
    :param progress: is told how far it is.
    :raises HostError: if the population cannot be had, or a worker dies.
    :raises PluginError: if there is no such policy.
    """
    if runs < 2:  # noqa: PLR2004 - one guest has no mean
        raise HostError(f"a sweep of {runs} guests tells nothing: draw 2 or more")
    if len(set(policies)) < len(policies) or not policies:
        raise HostError("name the policies to compare, each of them once")
    for policy in policies:
        make_policy(policy)
    if not isinstance(population, Population):
        population = populations.find(population)
    lots = draw(population, runs, seed)
    tasks = dict.fromkeys((lot.case, policy) for lot in lots for policy in policies)
    rows = _all_rows(list(tasks), executor, resume, progress)
    outcomes = (
        Outcome(lot, tuple(rows[lot.case, policy] for policy in policies))
        for lot in lots
    )
    return Result(population, runs, seed, tuple(policies), tuple(outcomes))


def _all_rows(
    tasks: Sequence[Task],
    executor: Executor | None,
    resume: Path | None,
    progress: Progress,
) -> dict[Task, Row]:
    """Return the row of every task: those of the file first, and then the others."""
    if resume is None:
        return _new_rows(tasks, {}, executor, progress)
    with Journal(resume) as journal:
        found = journal.find(tasks)
        return _new_rows(tasks, found, executor, progress, journal.add)


def _new_rows(
    tasks: Sequence[Task],
    found: dict[Task, Row],
    executor: Executor | None,
    progress: Progress,
    keep: Callable[[Row], None] = lambda _row: None,
) -> dict[Task, Row]:
    left = [task for task in tasks if task not in found]
    progress(len(found), len(tasks))
    for task, row in work.rows(left, executor):
        keep(row)
        found[task] = row
        progress(len(found), len(tasks))
    return found
