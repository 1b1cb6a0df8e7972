"""Shadows in processes of their own: what they say, and that no guest pays.

The policies are a stranger's, installed for the test: they hang, crash and print.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
from fakes import FakeHost, Recorder

from balloon_plugin import make_device, watch
from balloon_plugin.errors import HostError, PluginError
from balloon_plugin.events import (
    Judgement,
    PluginFailed,
    ShadowDiverged,
    ShadowGuesses,
)
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.trace import decode, read, recording
from balloon_plugin.watch import watching

POLICIES = """
import os, time
from balloon_plugin.policies.none import NonePolicy
from balloon_plugin.hookspecs import hookimpl

class Strange(NonePolicy):
    @hookimpl
    def policy_observe(self, event):
        if type(event).__name__ == "TargetRead":
            self.act()

class Hanging(Strange):
    def act(self):
        while True:
            pass

class Crashing(Strange):
    def act(self):
        os._exit(3)

class Raising(Strange):
    def act(self):
        raise KeyError("oh")

class HangingUp(Strange):
    def act(self):
        os.closerange(3, 99)
        os.close(0)
        while True:
            pass

class Printing(Strange):
    def act(self):
        print("nonsense", flush=True)
"""
ENTRY_POINTS = "".join(
    f"{kind.lower()} = strange:{kind}\n"
    for kind in ("Hanging", "Crashing", "Raising", "HangingUp", "Printing")
)
LONG = 60.0
"""Seconds in which something comes that must; it comes in one."""


@pytest.fixture(autouse=True)
def strange(tmp_path_factory, monkeypatch):
    """Install the strange policies for this test and its children."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "strange.py").write_text(POLICIES)
    info = folder / "strange-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text(f"[balloon_plugin.policies]\n{ENTRY_POINTS}")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))


class Served:
    """A device with shadows, and who listens to it."""

    def __init__(self, live, *shadows):
        self.witness = Recorder()
        self.device = make_device(live, observers=[self.witness])
        self._context = watching(self.device, *shadows)

    def __enter__(self):
        self.watch = self._context.__enter__()
        self.device.realize(FakeHost())
        return self

    def __exit__(self, *error):
        self._context.__exit__(*error)

    def read(self, times=1):
        for _ in range(times):
            assert self.device.get_config(0, 4)

    def until_dropped(self):
        """Let time pass until the first shadow is dropped; return why."""
        end = time.monotonic() + LONG
        while not (status := self.watch.status(0.05)[0]).dropped:
            assert time.monotonic() < end, f"nothing happens: {status}"
            self.device.tick()
        return status.dropped

    @property
    def failures(self):
        return [(e.plugin, e.error) for e in self.witness.of(PluginFailed)]


# --- what they say ------------------------------------------------------------------


def test_what_shadows_make_of_a_guest_is_known_and_told():
    with Served("evidence", "probe", "none", "evidence") as served:
        served.device.set_features(1 << 28)
        served.read()
        served.device.tick()

        probe, none, same = served.watch.status(LONG)

        told = [type(e) for e in served.witness.events if "Shadow" in str(type(e))]
    assert (probe.policy, probe.events, probe.verdict.state) == ("probe", 4, "TESTING")
    assert probe.guesses.why == (
        "the driver is shown 33, and never sees the 16 of this policy"
    )
    assert none.verdict.judgement is Judgement.GOOD
    assert none.diverged is not None
    assert none.guesses is None
    assert (same.diverged, same.guesses, same.divergences) == (None, None, 0)
    assert told.count(ShadowDiverged) == probe.divergences + none.divergences
    assert told.count(ShadowGuesses) == 1


def test_a_reset_begins_anew():
    with Served("evidence", "probe") as served:
        served.read()
        served.device.reset()
        served.device.tick()

        (probe,) = served.watch.status(LONG)

    assert probe.guesses is None
    assert probe.diverged.at == 3
    assert probe.divergences == 2


def test_their_news_are_in_the_trace(tmp_path):
    device = make_device("evidence")
    with recording(device, tmp_path / "x"), watching(device, "probe") as shadows:
        device.realize(FakeHost())
        device.get_config(0, 4)
        device.tick()
        shadows.status(LONG)

    kinds = {type(moment.entry) for moment in decode(read(tmp_path / "x"))[1]}
    assert {ShadowDiverged, ShadowGuesses} <= kinds


def test_what_a_live_policy_offers_counts():
    with Served("feature-bit", "probe", "feature-bit") as served:
        served.device.set_features(1 << 22)
        served.device.tick()

        probe, same = served.watch.status(LONG)

    assert "the driver accepted 0x400000" in probe.guesses.why
    assert same.guesses is None


def test_before_anything_happens_nothing_is_known():
    with watching(make_device("none"), "probe") as shadows:
        (status,) = shadows.status()

    assert (status.policy, status.events, status.dropped) == ("probe", 0, "")
    assert status.verdict.judgement is Judgement.UNDECIDED


class Failing:
    """An observer that raises, and counts how often it is called."""

    calls = 0

    @hookimpl
    def balloon_event(self, event):
        self.calls += 1
        raise KeyError(event)


def test_an_observer_that_was_cut_off_hears_nothing_of_them():
    with Served("none", "probe") as served:
        failing = Failing()
        served.device.plugins.register(failing)
        served.read()
        served.device.tick()
        served.watch.status(LONG)

        assert served.witness.of(ShadowDiverged)
        assert failing.calls == 1


# --- what goes wrong ----------------------------------------------------------------


def test_one_that_hangs_is_dropped_and_the_guest_goes_on(monkeypatch):
    monkeypatch.setattr(watch, "PATIENCE", 0.5)
    with Served("none", "hanging") as served:
        served.read(5)

        why = served.until_dropped()

        served.read()
    assert why == "it made nothing of an event in 0.5 s"
    assert served.failures == [("shadow hanging", why)]


def test_one_that_is_slow_is_dropped_before_it_takes_much_memory(monkeypatch):
    monkeypatch.setattr(watch, "MOST_WAITING", 1000)
    monkeypatch.setattr(watch, "_PIPE", 4096)
    with Served("none", "hanging") as served:
        process = served.watch._shadows[0]
        process._process.send_signal(signal.SIGSTOP)
        sent = 0
        while not served.watch.status()[0].dropped:
            served.read(100)
            sent += 100
            assert sent < 100_000

        assert served.watch.status()[0].dropped.startswith("it fell behind by ")
        assert len(process._waiting) < 1100


def test_one_that_crashes_says_how():
    with Served("none", "crashing", "probe") as served:
        served.read()

        assert served.until_dropped() == "its process ended (exit code 3)"
        assert served.watch.status(LONG)[1].dropped == ""


def test_one_that_hangs_up_is_not_waited_for():
    with Served("none", "hangingup") as served:
        served.read()

        assert served.until_dropped() == "its process ended (exit code -9)"


def test_one_that_raises_is_shut_until_the_reset_as_it_would_be_live():
    with Served("none", "raising") as served:
        served.read()
        served.device.tick()

        (status,) = served.watch.status(LONG)

    assert served.failures == [("shadow raising", "KeyError: 'oh'")]
    assert "failed" in status.gate.reason
    assert status.dropped == ""


def test_what_one_prints_is_no_news_of_it(capfd):
    with Served("none", "printing") as served:
        served.read(3)

        (status,) = served.watch.status(LONG)

    assert status.dropped == ""
    assert capfd.readouterr().err.count("nonsense") == 3


def test_one_that_does_not_exist_is_refused():
    with pytest.raises(PluginError, match="did you mean probe"), Served("none", "prob"):
        pass


def test_one_that_cannot_be_started_ends_those_that_were(monkeypatch):
    started = []

    def start(*words, **options):
        if started:
            raise OSError(errno.EMFILE, "Too many open files")
        started.append(popen(*words, **options))
        return started[0]

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)

    with (
        pytest.raises(HostError, match=r"for the shadow probe: Too many .* let fewer"),
        watching(make_device("none"), "none", "probe"),
    ):
        pass
    assert started[0].returncode == -signal.SIGKILL


def test_a_device_that_is_realized_is_too_late():
    device = make_device("none")
    device.realize(FakeHost())

    with pytest.raises(HostError, match="record or watch it before"):
        watching(device, "probe").__enter__()


def test_all_end_with_their_context():
    with Served("none", "none", "hanging") as served:
        served.read()
        processes = [shadow._process for shadow in served.watch._shadows]

    assert all(process.poll() is not None for process in processes)


ORPHAN = """
import os, signal
from balloon_plugin import make_device
from balloon_plugin.watch import watching
device = make_device("none")
with watching(device, "hanging") as shadows:
    print(shadows._shadows[0]._process.pid, flush=True)
    input()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_none_outlives_a_host_that_is_killed():
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", ORPHAN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as host:
        shadow = int(host.stdout.readline())
        host.communicate("\n")

    end = time.monotonic() + LONG
    while os.path.exists(f"/proc/{shadow}") and time.monotonic() < end:  # noqa: PTH110
        assert host.returncode == -signal.SIGKILL
    assert not os.path.exists(f"/proc/{shadow}")  # noqa: PTH110
