"""``balloon-plugin ctl``: a device that is being served is talked to."""

from __future__ import annotations

import contextlib
import json
from functools import partial

import pytest
from command_line import RAM, Guest, until
from control_kit import Served

from balloon_plugin import control
from balloon_plugin.cli import ctl as ctl_module
from balloon_plugin.events import Evidence, Judgement, Verdict

# --- targets ------------------------------------------------------------------------


def test_the_target_is_changed_while_it_runs(serve, ctl, run):
    serve("--socket", "a", "--control", "c", "--policy", "none")
    with contextlib.closing(Guest("a")):
        until(lambda: ctl("c", "query")["driver"])

        told = run("ctl", "c", "balloon", "512K")

        assert told == (0, "a balloon of 512 KiB is accepted\n", "")
        assert ctl("c", "query")["advertised"] == RAM // 2
        assert ctl("c", "verdict")["state"] == "BELIEVED"


def test_a_target_that_waits_is_told(serve, ctl, run):
    served = serve("--socket", "a", "--control", "c", "--policy", "probe")
    with contextlib.closing(Guest("a")):
        until(lambda: ctl("c", "query")["driver"])

        code, out, _ = run("ctl", "c", "balloon", "512K")

    assert code == 0
    assert out.startswith("a balloon of 512 KiB is deferred: the driver is being test")
    served.terminate()
    told = served.communicate()[0].splitlines()
    assert "a: target of 128 pages is deferred (the driver is being tested; " in told[0]


def test_a_target_that_is_refused_is_an_error(serve, refused, ctl):
    served = serve(
        *("--socket", "a", "--control", "c", "--policy", "feature-bit:always=yes")
    )
    with contextlib.closing(Guest("a")):
        until(lambda: ctl("c", "query")["driver"])

        assert refused("ctl", "c", "balloon", "512K").startswith(
            "the target is refused: the driver did not accept VIRTIO_BALLOON_F_ENDIAN"
        )
    served.terminate()


# --- views --------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Two guests, called a and b, behind the control socket c."""
    monkeypatch.chdir(tmp_path)
    with Served(tmp_path / "c", "a", "b") as served:
        yield served


@pytest.mark.usefixtures("served")
def test_a_view_is_of_all_guests_or_of_one(run):
    _, of_all, _ = run("ctl", "c", "query")
    _, of_one, _ = run("ctl", "c", "query", "b")

    first, *lines = of_all.splitlines()
    assert first == "a"
    assert lines[0] == "  memory      16 MiB, of which the guest has 16 MiB"
    assert "b" in lines
    assert of_one == of_all[of_all.index("b\n") :]


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("view", ["query", "stats", "verdict"])
def test_for_machines_there_is_a_line_for_each_guest(run, view):
    code, out, err = run("ctl", "c", view, "--json")

    assert (code, err) == (0, "")
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["a", "b"]


def test_statistics_can_be_asked_for(served, run):
    code, out, _ = run("ctl", "c", "stats", "b", "--every", "5")

    assert (code, out) == (0, "b\n  statistics  asked for every 5 s; none have come\n")
    assert served.guests["a"].device.query().stats_interval == 0


def test_the_verdict_is_shown_with_its_evidence(served, run):
    evidence = (Evidence("actual = 256", "It took more."),)
    verdict = Verdict(Judgement.BUGGY, "HELD", (), evidence)
    served.guests["a"].policy.verdict = verdict
    served.write_actual(0)

    _, out, _ = run("ctl", "c", "verdict", "a")

    assert out.splitlines() == [
        "a",
        "  policy        ScriptedPolicy",
        "  verdict       buggy (HELD)",
        "  actual = 256  It took more.",
    ]


@pytest.mark.usefixtures("served")
def test_a_guest_that_does_not_exist_is_refused(refused):
    assert refused("ctl", "c", "query", "z") == (
        "there is no guest 'z'; the daemon serves a, b"
    )


@pytest.mark.usefixtures("served")
def test_whose_target_it_is_must_be_said(refused):
    assert refused("ctl", "c", "balloon", "1M") == (
        "a guest must be named ('id'); the daemon serves a, b"
    )


# --- watch --------------------------------------------------------------------------


def test_watch_tells_what_changes_until_it_is_interrupted(served, run, monkeypatch):
    def sleep(_seconds):
        if served.guests["a"].device.query().requested:
            raise KeyboardInterrupt
        served.run(lambda: served.guests["a"].device.set_target(256))

    monkeypatch.setattr(ctl_module.time, "sleep", sleep)

    code, out, err = run("ctl", "c", "watch", "missing")

    assert (code, err) == (0, "")
    told = [line.split()[1:] for line in out.splitlines()]
    assert [line[0] for line in told] == ["a", "b", "missing", "a"]
    assert told[0][3:5] == ["target", "0"]
    assert told[3][3:5] == ["target", "1M"]
    assert told[2][-2:] == ["no", "answer"]


# --- refused ------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_where_nobody_listens_nobody_answers(refused):
    assert refused("ctl", "missing", "query") == (
        "no device answers on missing (No such file or directory); "
        "give serve's --control path"
    )


def test_a_front_ends_socket_is_no_control_socket(serve, refused, monkeypatch):
    monkeypatch.setattr(control, "Client", partial(control.Client, patience=0.1))
    served = serve("--socket", "a")

    sentence = refused("ctl", "a", "query")

    assert sentence.startswith("no device answers on a (")
    assert sentence.endswith("); give serve's --control path")
    assert served.poll() is None
