"""All cases under each policy, in as many processes as there are processors.

The rows are the same, in the same order, for any number of workers: a run depends on
nothing but its case and its policy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Final

from balloon_plugin.compare.cases import Case
from balloon_plugin.compare.circumstances import find as find_circumstance
from balloon_plugin.compare.runner import Row, run
from balloon_plugin.compare.workers import pool, told
from balloon_plugin.guests.profiles import find as find_guest

__all__ = ["Task", "rows"]

CHUNK: Final = 16
"""Runs that a worker is given at a time: a third of a second, so that progress shows
and that nobody waits long for the last one."""

Task = tuple[Case, str]
"""A case, and the policy that it is put under."""


def rows(tasks: Sequence[Task], workers: int | None = None) -> Iterator[Row]:
    """Yield the row of each task, in order.

    :param workers: processes; ``None`` for as many as there are processors.
    :raises HostError: if one of them died.
    """
    workers = workers or len(os.sched_getaffinity(0))
    if workers == 1:
        yield from map(_row, tasks)
        return
    chunks = [tasks[at : at + CHUNK] for at in range(0, len(tasks), CHUNK)]
    futures: list[Future[list[Row]]] = []
    with told(), pool(min(workers, len(chunks)) or 1) as executor:
        try:
            futures.extend(executor.submit(_chunk, chunk) for chunk in chunks)
            for future in futures:
                yield from future.result()
        finally:
            # The pool's own cancel_futures is forgotten when it is shut down again,
            # as here, or nobody holds it any more.
            for future in futures:
                future.cancel()


def _chunk(tasks: Sequence[Task]) -> list[Row]:
    return [_row(task) for task in tasks]


def _row(task: Task) -> Row:
    case, policy = task
    return run(find_guest(case.guest), policy, find_circumstance(case.circumstance))
