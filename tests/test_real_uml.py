"""Real Linux kernels under one daemon: many at once, for long, and while it dies."""

from __future__ import annotations

import functools
import os
import random
import threading
import time

import pytest
from console_guest import SOCKET
from mortal_daemon import KEPT, MEBIBYTE, die_and_go_on, until

from balloon_plugin import make_device
from balloon_plugin.boot.uml import find_uml
from balloon_plugin.hosts.vhost_user.daemon import Daemon

pytestmark = [pytest.mark.real, pytest.mark.slow]

LONG = os.environ.get("BALLOON_LONG") == "1"
SECONDS = 60.0 if LONG else 5.0
DEATHS = 20 if LONG else 4
MANY = 24
PACKED = 1 << 34


@pytest.fixture(scope="module")
def machine(require_real):
    return require_real(find_uml)


@pytest.fixture
def guests(machine, begin_guest):
    """Give a function that boots a guest in a folder of its own."""
    return functools.partial(begin_guest, machine)


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
        assert self.guest.power_off() == 0, self.guest.last_words


def test_two_dozen_guests_at_once(daemon, guests, tmp_path):
    # With less, a guest may have fewer threads than its kernel starts at boot, where
    # they pile up while 24 of them do that at once: a helper for each device found.
    served = [Served(daemon, guests, tmp_path, f"g{n}", 128) for n in range(MANY)]
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


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_a_guest_goes_on_when_its_daemon_is_killed(mortal, relayed, guests, packed):
    relay = relayed(packed=packed)
    guest = guests("guest", 128)
    guest.boot()
    before = guest.ask(f"alloc {KEPT}")
    guest.load()
    until(lambda: mortal.status["accepted"])
    assert bool(mortal.status["features"] & PACKED) == packed

    die_and_go_on(mortal, guest, DEATHS)

    assert guest.ask("device").total == before.total
    assert guest.power_off() == 0
    assert relay.end().count("the daemon is there") == DEATHS
