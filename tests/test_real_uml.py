"""Real Linux kernels under one daemon: many at once, for long, and while it dies."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time

import pytest
from uml_guests import PATIENCE, SOCKET, Relay, UmlGuest

from balloon_plugin import control, make_device
from balloon_plugin.boot.uml import find_uml
from balloon_plugin.hosts.vhost_user.daemon import Daemon

pytestmark = [pytest.mark.real, pytest.mark.slow]

LONG = os.environ.get("BALLOON_LONG") == "1"
SECONDS = 60.0 if LONG else 5.0
DEATHS = 20 if LONG else 4
MANY = 24
MEBIBYTE = 256
"""Pages in one."""

KEPT = 16
"""MiB that a guest holds while its balloon comes and goes."""


@pytest.fixture(scope="module")
def machine(require_real):
    return require_real(find_uml)


@pytest.fixture
def guests(machine, tmp_path):
    """Give a function that boots a guest in a folder of its own."""
    started = []

    def begin(name, mebibytes):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        started.append(UmlGuest(machine, folder, mebibytes))
        return started[-1].start()

    yield begin
    for guest in started:
        guest.stop()


def until(what):
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


# --- one daemon, in this process ----------------------------------------------------


@pytest.fixture
def daemon():
    with Daemon() as daemon:
        thread = threading.Thread(target=daemon.run)
        thread.start()
        yield daemon
        daemon.stop()
        thread.join()


class Served:
    """A guest and the slot that serves it."""

    def __init__(self, daemon, guests, folder, name, mebibytes):
        (folder / name).mkdir()
        path = folder / name / SOCKET
        self._daemon = daemon
        self._slot = daemon.call(lambda: daemon.add(path, lambda: make_device("probe")))
        self.guest = guests(name, mebibytes)

    def ask(self, function):
        return self._daemon.call(lambda: function(self._slot.device))

    @property
    def status(self):
        return self.ask(lambda device: device.query())

    def begin(self):
        """Boot, hold some memory, load the driver and wait for its verdict."""
        self.guest.boot()
        self.before = self.guest.ask(f"alloc {KEPT}")
        assert self.before.kept == KEPT * MEBIBYTE
        self.guest.load()
        until(lambda: self.status.accepted)

    def reaches(self, pages):
        until(lambda: self.status.actual == pages)
        assert self.status.ballooned == pages

    def end(self):
        """Empty the balloon; nothing may be missing or lost."""
        self.ask(lambda device: device.set_target(0))
        self.reaches(0)
        after = self.guest.ask("device")
        assert (after.kept, after.lost) == (KEPT * MEBIBYTE, 0)
        assert after.total == self.before.total
        assert self.guest.power_off() == 0


def test_two_dozen_guests_at_once(daemon, guests, tmp_path):
    served = [Served(daemon, guests, tmp_path, f"g{n}", 96) for n in range(MANY)]
    for each in served:
        each.begin()

    for number, each in enumerate(served):
        pages = (1 + number % 8) * MEBIBYTE
        each.ask(lambda device, pages=pages: device.set_target(pages))
    for number, each in enumerate(served):
        each.reaches((1 + number % 8) * MEBIBYTE)

    for each in served:
        each.end()


def test_targets_at_random_cost_the_guest_nothing(daemon, guests, tmp_path):
    chance = random.Random(7)  # noqa: S311 - the same each time
    one = Served(daemon, guests, tmp_path, "guest", 128)
    one.begin()
    changes, end = 0, time.monotonic() + SECONDS

    while time.monotonic() < end:
        pages = chance.randrange(64 * MEBIBYTE)
        one.ask(lambda device, pages=pages: device.set_target(pages))
        changes += 1
        # Most come before the one before is reached.
        time.sleep(chance.choice((0.01, 0.05, 0.2)))
    one.reaches(pages)

    assert changes > 5 * SECONDS
    one.end()


# --- a daemon that dies -------------------------------------------------------------


class Mortal:
    """The daemon in a process of its own."""

    def __init__(self, folder):
        self._folder = folder
        self.back = folder / "back"
        self._log = (folder / "log").open("a")
        self.start()

    def start(self):
        words = ("serve", "--socket", "back", "--state", ".", "--control", "control")
        self._process = subprocess.Popen(  # noqa: S603 - it is our own
            [sys.executable, "-m", "balloon_plugin", *words],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        while ": waiting for a front end" not in self._process.stdout.readline():
            assert self._process.poll() is None

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def close(self):
        self.kill()
        self._log.close()

    def ask(self, command, **values):
        return control.ask(self._folder / "control", command, **values)

    @property
    def status(self):
        return self.ask("query-balloon-status")


@pytest.fixture
def mortal(tmp_path):
    mortal = Mortal(tmp_path)
    yield mortal
    mortal.close()


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_a_guest_goes_on_when_its_daemon_is_killed(mortal, guests, tmp_path, packed):
    chance = random.Random(7)  # noqa: S311 - the same each time
    (tmp_path / "guest").mkdir()
    hidden = 0 if packed else 1 << 34
    relay = Relay(tmp_path / "guest" / SOCKET, mortal.back, hidden)
    guest = guests("guest", 128)
    guest.boot()
    before = guest.ask(f"alloc {KEPT}")
    guest.load()
    until(lambda: mortal.status["accepted"])
    inflated, last = guest.ask("device").inflated, 0

    for death in range(DEATHS):
        pages = chance.randrange(8, 64) * MEBIBYTE
        mortal.ask("balloon", value=mortal.status["ram"] * 4096 - pages * 4096)
        # In the middle of what it asked for, more often than not.
        time.sleep(chance.choice((0.0, 0.005, 0.01, 0.02)))
        mortal.kill()
        mortal.start()
        until(lambda: mortal.status["driver"])
        until(lambda pages=pages: mortal.status["actual"] == pages)

        status, report = mortal.status, guest.ask("device")
        assert relay.connected > death + 1
        assert status["ballooned"] == status["reclaimed"] == pages
        assert report.inflated - report.deflated == pages
        # Nothing is tested again.
        inflated, last = inflated + max(0, pages - last), pages
        assert report.inflated == inflated
        assert status["verdict"]["judgement"] == "good"
        assert (report.kept, report.lost) == (KEPT * MEBIBYTE, 0)

    mortal.ask("balloon", value=mortal.status["ram"] * 4096)
    until(lambda: mortal.status["actual"] == 0)
    assert guest.ask("device").total == before.total
    assert guest.power_off() == 0
    relay.join()
