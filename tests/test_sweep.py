"""Sweeps: the same bytes however they are run, interrupted or taken up again."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command_line import command, until
from fleets import SMALL

from balloon_plugin.compare import run as one_run
from balloon_plugin.compare.circumstances import find as find_circumstance
from balloon_plugin.errors import HostError, PluginError
from balloon_plugin.guests.profiles import find as find_guest
from balloon_plugin.sweep import decide, processes, sweep, version, work
from balloon_plugin.sweep.export import as_document

POLICIES = ("probe", "evidence")


@pytest.fixture
def fleet(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def counted(monkeypatch):
    """The tasks that are really run."""
    done = []
    monkeypatch.setattr(work, "run", lambda *task: done.append(task) or one_run(*task))
    return done


def text(result):
    return json.dumps(as_document(result, decide(result)))


def test_each_guest_is_put_under_every_policy(fleet):
    result = sweep(fleet, POLICIES, runs=20)

    assert (result.runs, result.seed, result.policies) == (20, 1, POLICIES)
    assert sum(outcome.lot.count for outcome in result.outcomes) == 20
    for outcome in result.outcomes:
        case = outcome.lot.case
        assert [row.policy for row in outcome.rows] == [*POLICIES]
        assert {(row.guest, row.circumstance) for row in outcome.rows} == {
            (case.guest, case.circumstance)
        }


def test_guests_that_were_drawn_alike_are_run_once(fleet, counted):
    result = sweep(fleet, POLICIES, runs=200)

    assert len(counted) == len(POLICIES) * len(result.outcomes) < 200


def test_one_run_stands_for_all_that_are_alike(fleet):
    result = sweep(fleet, POLICIES, runs=20)

    again = tuple(
        one_run(
            find_guest(outcome.lot.case.guest),
            policy,
            find_circumstance(outcome.lot.case.circumstance),
        )
        for outcome in result.outcomes
        for policy in POLICIES
    )
    assert again == tuple(row for outcome in result.outcomes for row in outcome.rows)


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_changes_no_byte(fleet, workers):
    here = sweep(fleet, POLICIES, runs=60)

    with processes(workers) as executor:
        there = sweep(fleet, POLICIES, runs=60, executor=executor)

    assert text(here) == text(there)


def test_it_runs_on_any_executor(fleet):
    with ThreadPoolExecutor(1) as executor:
        result = sweep(fleet, POLICIES, runs=20, executor=executor)

    assert text(result) == text(sweep(fleet, POLICIES, runs=20))


def test_progress_is_told(fleet):
    told = []

    result = sweep(fleet, ["none"], runs=20, progress=lambda *far: told.append(far))

    total = len(result.outcomes)
    assert told == [(done, total) for done in range(total + 1)]


def test_a_worker_that_dies_is_an_error_that_says_so(fleet, monkeypatch):
    monkeypatch.setattr(work, "run", lambda *_: os.kill(os.getpid(), signal.SIGKILL))

    with processes(2) as executor, pytest.raises(HostError, match="was killed"):
        sweep(fleet, POLICIES, runs=20, executor=executor)


def test_a_worker_with_other_code_is_found_out(fleet, monkeypatch):
    versions = iter([{"none": "ours"}, {"none": "its own"}])
    monkeypatch.setattr(work, "_versions", lambda _tasks: next(versions))

    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(HostError, match=r"has other code .*: install the same on both"),
    ):
        sweep(fleet, ["none"], runs=20, executor=executor)


@pytest.mark.parametrize(
    ("policies", "runs", "error", "why"),
    [
        (["probe"], 1, HostError, "draw 2 or more"),
        ([], 10, HostError, "name the policies"),
        (["probe", "probe"], 10, HostError, "each of them once"),
        (["prob"], 10, PluginError, "did you mean probe?"),
    ],
)
def test_what_cannot_be_compared_is_refused(fleet, policies, runs, error, why):
    with pytest.raises(error) as caught:
        sweep(fleet, policies, runs=runs)

    assert why in str(caught.value)


# --- a file of finished runs --------------------------------------------------------


def test_finished_runs_are_not_run_again(fleet, tmp_path, counted):
    kept = tmp_path / "kept"
    first = sweep(fleet, POLICIES, runs=20, resume=kept)
    ran = len(counted)

    second = sweep(fleet, POLICIES, runs=20, resume=kept)

    assert ran
    assert len(counted) == ran
    assert text(first) == text(second)


def test_a_run_is_in_the_file_as_soon_as_it_is_done(fleet, tmp_path):
    kept, seen = tmp_path / "kept", []

    def look(done, _total):
        seen.append((done, kept.read_text().count("\n")))

    sweep(fleet, ["none"], runs=20, resume=kept, progress=look)

    assert len(seen) > 2
    assert seen == [(done, done + 1) for done in range(len(seen))]


def test_one_file_serves_many_sweeps(fleet, tmp_path, counted):
    kept = tmp_path / "kept"
    sweep(fleet, ["probe"], runs=20, resume=kept)
    ran = len(counted)

    larger = sweep(fleet, POLICIES, runs=60, seed=2, resume=kept)

    assert len(counted) - ran < 2 * len(larger.outcomes)
    assert text(larger) == text(sweep(fleet, POLICIES, runs=60, seed=2))


def test_the_file_is_lines_of_json_with_a_version(fleet, tmp_path):
    kept = tmp_path / "kept"

    sweep(fleet, ["probe"], runs=20, resume=kept)

    head, *lines = map(json.loads, kept.read_text().splitlines())
    assert head == {"format": "finished runs of balloon-plugin sweep", "version": 1}
    assert {line["row"]["policy"] for line in lines} == {"probe"}
    assert {len(line["code"]) for line in lines} == {16}


def test_runs_by_other_code_are_not_mixed_in(fleet, tmp_path, counted):
    kept = tmp_path / "kept"
    sweep(fleet, ["probe"], runs=20, resume=kept)
    ran = len(counted)
    head, *lines = kept.read_text().splitlines(keepends=True)
    kept.write_text(head + lines[0].replace('"code":"', '"code":"x') + lines[1])

    sweep(fleet, ["probe"], runs=20, resume=kept)

    assert len(counted) == 2 * ran - 1
    assert '"code":"x' in kept.read_text()


def test_what_a_crash_left_unfinished_is_run_again(fleet, tmp_path, counted):
    kept = tmp_path / "kept"
    whole = sweep(fleet, ["probe"], runs=20, resume=kept)
    ran = len(counted)
    kept.write_bytes(kept.read_bytes()[:-30])

    for _ in range(2):
        assert text(sweep(fleet, ["probe"], runs=20, resume=kept)) == text(whole)

    assert len(counted) == ran + 1


@pytest.mark.parametrize("content", ["anything", '{"format": "x", "version": 1}\n'])
def test_a_file_of_another_kind_is_left_alone(fleet, tmp_path, content):
    kept = tmp_path / "kept"
    kept.write_text(content)

    with pytest.raises(HostError, match="is no file of finished runs of version 1"):
        sweep(fleet, ["probe"], runs=20, resume=kept)

    assert kept.read_text() == content


@pytest.mark.parametrize(
    "damage",
    [
        b"1",
        b"{}",
        b'{"row":1}',
        b'{"row":{"guest":[],"circumstance":"usual","policy":"probe"}}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_is_damaged_in_the_file_is_passed_over(fleet, tmp_path, counted, damage):
    kept = tmp_path / "kept"
    sweep(fleet, ["probe"], runs=20, resume=kept)
    ran = len(counted)
    head, *lines = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(b"".join([head, damage, b"\n", *lines]))

    sweep(fleet, ["probe"], runs=20, resume=kept)

    assert len(counted) == ran


def test_a_disk_that_is_full_is_told_in_a_sentence(fleet):
    full = Path("/dev/full")

    with pytest.raises(HostError, match="full cannot be written: No space left on"):
        sweep(fleet, ["probe"], runs=20, resume=full)


def test_a_file_that_cannot_be_written_is_refused(fleet, tmp_path):
    with pytest.raises(HostError, match="cannot be written: Is a directory"):
        sweep(fleet, ["probe"], runs=20, resume=tmp_path)


def test_an_interrupted_sweep_ends_at_once_and_goes_on_later(fleet, tmp_path):
    kept = tmp_path / "kept"
    words = ("sweep", fleet, "--runs", 3000, "--workers", 2, "--resume", kept)
    with subprocess.Popen(  # noqa: S603 - it is our own
        command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: kept.exists() and kept.read_text().count("\n") > 2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (130, "")
    assert err.startswith("balloon-plugin: interrupted after ")
    assert err.endswith(f"which are in {kept}: the same command goes on from there\n")
    done = kept.read_text().count("\n") - 1
    assert int(err.split()[3]) == done


# --- versions -----------------------------------------------------------------------


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A policy of another package; return the file that it is in."""
    source = "class Policy:\n    def policy_observe(self, event): ...\n"
    package = tmp_path / "a_stranger"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    policy = importlib.import_module("a_stranger.inner").Policy
    monkeypatch.setattr(version, "make_policy", lambda _: policy())
    yield package / "inner.py"
    version.version_of.cache_clear()
    del sys.modules["a_stranger.inner"], sys.modules["a_stranger"]


def test_a_policys_own_code_is_part_of_its_version(stranger):
    version.version_of.cache_clear()
    before = version.version_of("stranger")
    stranger.write_text(stranger.read_text() + "# changed\n")

    version.version_of.cache_clear()

    assert version.version_of("stranger") != before


def test_the_version_of_a_policy_of_ours_is_the_packages():
    version.version_of.cache_clear()

    assert version.version_of("probe") == version.version_of("probe:pages=32")
