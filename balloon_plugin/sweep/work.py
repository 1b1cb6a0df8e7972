"""Runs, done on any executor of ``concurrent.futures``: here, or far away.

A run depends on nothing but its guest, its circumstance and its policy. So it does not
matter who does it, in which order, or how often: what was lost with a worker that died
is done again by another, where the executor has one.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from typing import Final, TypeAlias

from balloon_plugin.compare import Row, run
from balloon_plugin.compare.cases import Case
from balloon_plugin.compare.circumstances import find as find_circumstance
from balloon_plugin.compare.workers import pool, told
from balloon_plugin.errors import HostError
from balloon_plugin.guests.profiles import find as find_guest
from balloon_plugin.sweep.version import version_of

__all__ = ["Task", "cluster", "processes", "rows"]

Task: TypeAlias = tuple[Case, str]
"""A case, and the policy that it is put under."""

CHUNK: Final = 16
"""Runs that a worker is given at a time: a sixth of a second, long beside what it takes
to send them (a millisecond), and short for whoever waits for the last."""

ANSWER: Final = 10
"""Seconds in which a scheduler has to answer, and to have a worker."""


def rows(
    tasks: Sequence[Task], executor: Executor | None = None
) -> Iterator[tuple[Task, Row]]:
    """Yield the row of each task, in any order, as they come.

    Whoever stops early gets rid of what has not begun.

    :param executor: where to run; ``None`` to run here and now.
    :raises HostError: if a worker died, or runs other code than ours.
    """
    chunks = [tasks[at : at + CHUNK] for at in range(0, len(tasks), CHUNK)]
    if executor is None:
        for chunk in chunks:
            yield from zip(chunk, map(_row, chunk), strict=True)
        return
    versions = _versions(tasks)
    futures = {executor.submit(_done, chunk, versions): chunk for chunk in chunks}
    try:
        with told():
            for future in as_completed(futures):
                yield from zip(futures.pop(future), future.result(), strict=True)
    finally:
        for future in futures:
            future.cancel()


def _versions(tasks: Sequence[Task]) -> dict[str, str]:
    return {policy: version_of(policy) for policy in {policy for _, policy in tasks}}


def _done(tasks: Sequence[Task], versions: Mapping[str, str]) -> list[Row]:
    """Do a chunk of runs, in a worker."""
    for policy, version in _versions(tasks).items():
        if version != versions[policy]:
            raise HostError(
                f"a worker on {platform.node()} has other code of balloon_plugin or of "
                f"the policy {policy} than this process: install the same on both"
            )
    return [_row(task) for task in tasks]


def _row(task: Task) -> Row:
    case, policy = task
    return run(find_guest(case.guest), policy, find_circumstance(case.circumstance))


# --- executors ----------------------------------------------------------------------


@contextlib.contextmanager
def processes(count: int | None = None) -> Iterator[Executor | None]:
    """Give an executor of so many processes; one is this process itself.

    :param count: ``None`` for as many as there are processors.
    """
    count = count or len(os.sched_getaffinity(0))
    if count == 1:
        yield None
        return
    executor = pool(count)
    try:
        yield executor
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """Give an executor of a Dask cluster.

    Runs of a worker that dies are done again by others.

    :param address: of its scheduler: ``tcp://HOST:8786``.
    :raises HostError: if there is none, or it has no worker, or loses too many.
    """
    try:
        distributed = importlib.import_module("distributed")
    except ImportError as error:
        raise HostError(
            "a cluster needs Dask: pip install 'balloon-plugin[cluster]'"
        ) from error
    try:
        client = distributed.Client(address, timeout=ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        raise HostError(f"no scheduler of Dask answers at {address}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=ANSWER)
            yield client.get_executor()
        except distributed.TimeoutError as error:
            raise HostError(f"the cluster at {address} has no worker") from error
        except distributed.KilledWorker as error:
            raise HostError(
                f"the cluster at {address} lost several workers over the same runs: "
                "look into their logs"
            ) from error
