"""Worker processes: as many as are wanted, and none longer than whoever wanted them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from balloon_plugin.errors import HostError

__all__ = ["pool", "told"]


def pool(count: int) -> ProcessPoolExecutor:
    """Return an executor of so many processes.

    They are forked, with all Pythons: others, the usual ones from 3.14 on, run a script
    anew in each process, so that one without a guard could not ask for them.
    """
    forked = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(count, mp_context=forked, initializer=_begin)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Say in a sentence that a worker died.

    :raises HostError: in place of what the executor raises then.
    """
    try:
        yield
    except BrokenProcessPool as error:
        raise HostError(
            "a worker process was killed (was memory short?): run again"
        ) from error


def _begin() -> None:
    """Leave Ctrl-C to the parent, which ends its workers; end if it is killed itself.

    They wait for work on a pipe that they hold open themselves, and would do so for
    good.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
