"""A sweep on a real Dask cluster, of which a worker is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial

import pytest
from fleets import SMALL

from balloon_plugin.errors import HostError
from balloon_plugin.sweep import cluster, decide, sweep, work
from balloon_plugin.sweep.export import as_document

pytestmark = pytest.mark.slow


@pytest.fixture
def fleet(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def start():
    """Starts a scheduler and workers, processes of their own."""
    from distributed import LocalCluster  # noqa: PLC0415 - quick tests do without it

    return partial(LocalCluster, dashboard_address=":0")


@pytest.fixture(scope="module")
def local(start):
    """A scheduler and two workers."""
    with start(n_workers=2, threads_per_worker=1, memory_limit=0) as cluster:
        yield cluster


@pytest.fixture
def worker_pid(local):
    def worker_pid():
        with local.get_client() as client:
            return next(iter(client.run(os.getpid).values()))

    return worker_pid


def text(result):
    return json.dumps(as_document(result, decide(result)))


def test_a_worker_that_is_killed_costs_no_run(local, fleet, worker_pid, monkeypatch):
    monkeypatch.setattr(work, "CHUNK", 2)
    victim, told = worker_pid(), []

    def progress(done, total):
        told.append((done, total))
        if done == 4:
            os.kill(victim, signal.SIGKILL)

    with cluster(local.scheduler_address) as executor:
        result = sweep(fleet, ["probe"], runs=60, executor=executor, progress=progress)

    assert victim != worker_pid()
    assert told[-1][0] == told[-1][1] > 8
    assert text(result) == text(sweep(fleet, ["probe"], runs=60))


def test_runs_that_kill_every_worker_are_given_up(local, fleet, monkeypatch):
    monkeypatch.setattr(work, "_done", _die)

    with (
        pytest.raises(HostError, match="lost several workers over the same runs"),
        cluster(local.scheduler_address) as executor,
    ):
        sweep(fleet, ["none"], runs=2, executor=executor)


def _die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_cluster_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(work, "ANSWER", 0.2)

    with (
        pytest.raises(HostError, match="no scheduler of Dask answers at tcp:"),
        cluster("tcp://127.0.0.1:1"),
    ):
        pass


def test_a_cluster_without_workers_is_refused(start, monkeypatch):
    monkeypatch.setattr(work, "ANSWER", 1)
    with (
        start(n_workers=0) as empty,
        pytest.raises(HostError, match="has no worker"),
        cluster(empty.scheduler_address),
    ):
        pass


def test_without_dask_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)

    with (
        pytest.raises(HostError, match=r"pip install 'balloon-plugin\[cluster\]'"),
        cluster("tcp://127.0.0.1:8786"),
    ):
        pass
