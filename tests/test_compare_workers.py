"""Worker processes: they end with their parent, and it hears of theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import until

from balloon_plugin.compare.workers import pool, told
from balloon_plugin.errors import HostError

PARENT = """
import os, signal
from balloon_plugin.compare.workers import pool
with pool(2) as executor:
    executor.submit(os.getpid).result()
    print(*executor._processes, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_none_outlives_a_parent_that_is_killed():
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True
    ) as parent:
        workers = [Path("/proc", pid) for pid in parent.stdout.readline().split()]

    assert parent.returncode == -signal.SIGKILL
    assert len(workers) == 2
    until(lambda: not any(worker.exists() for worker in workers))


def test_an_interrupt_is_for_the_parent():
    with pool(1) as executor:
        assert executor.submit(signal.getsignal, signal.SIGINT).result() is (
            signal.SIG_IGN
        )


def test_one_that_is_killed_is_told_of_in_a_sentence():
    with pytest.raises(HostError, match="was killed"), told(), pool(1) as executor:
        executor.submit(os._exit, 1).result()
