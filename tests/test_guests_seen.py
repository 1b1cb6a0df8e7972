"""The table of what real kernels showed, and the same from simulated ones.

Each row was seen on a real kernel: Linux 6.12 on aarch64 in QEMU, whose RAM begins at
1 GiB, with its own driver or with one that does as those before 3.4, against a device
that does the test of the 2012 patch.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from fakes import Recorder

from balloon_plugin import make_device
from balloon_plugin.compare.clerk import Offer
from balloon_plugin.events import (
    ActualWritten,
    DeviceReset,
    PagesDeflated,
    PagesInflated,
)
from balloon_plugin.guests import find
from balloon_plugin.guests.access import Access
from balloon_plugin.guests.guest import Guest
from balloon_plugin.guests.traits import Conditions, Order
from balloon_plugin.hosts.simulated import Setup, SimulatedHost

RAM_START = 1 << 30
RAM_PAGES = 16384


OFFERED = 0b111111
"""All features of the specification (§5.5.3)."""


class Tapped(SimulatedHost):
    """A machine that notes each write to the configuration space."""

    def __init__(self, *arguments):
        self.writes = []
        super().__init__(*arguments)

    def config_write(self, offset, data):
        self.writes.append((offset, data))
        super().config_write(offset, data)


def real(name, driver=(), **changes):
    """Return a guest as it was booted: on a machine whose RAM begins at 1 GiB."""
    guest = find(name)
    traits = dataclasses.replace(guest.driver, **dict(driver))
    return dataclasses.replace(guest, driver=traits, ram_start=RAM_START, **changes)


class Watched:
    """A guest under the test of 2012, and what it shows.

    :ivar first: its first inflate buffer, as the device reads it.
    :ivar first_at: when that came, in seconds.
    """

    def __init__(self, guest, offered=0, **conditions):
        self.recorder = Recorder()
        self.device = make_device("probe", observers=[self.recorder])
        if offered:
            self.device.plugins.register(Offer(offered))
        setup = Setup(
            ram_start=RAM_START,
            byte_order=guest.byte_order,
            legacy=not guest.modern,
        )
        self.host = Tapped(self.device, setup)
        self.guest = Guest(guest, self.host, Conditions(**conditions))
        self.first = self.first_at = None

    def run(self, seconds=2):
        while self.host.now() < seconds:
            self.guest.run(100)
            if self.first is None and self.recorder.of(PagesInflated):
                self.first = self.recorder.of(PagesInflated)[0].pfns
                self.first_at = self.host.now()
            self.host.advance(0.1)
        return self

    @property
    def distinct(self):
        return len(set(self.first))

    @property
    def inside(self):
        """How many of the first numbers are pages of RAM."""
        start = RAM_START // 4096
        return sum(start <= pfn < start + RAM_PAGES for pfn in self.first)

    @property
    def actual(self):
        """Each value that the device took ``actual`` to have."""
        return [event.actual for event in self.recorder.of(ActualWritten)]

    @property
    def state(self):
        return self.device.query().verdict.state


@pytest.fixture
def watch():
    """Boot a guest, and let go of its machine afterwards."""
    hosts = []

    def watch(*guest, **conditions):
        watched = Watched(*guest, **conditions)
        hosts.append(watched.host)
        return watched.run()

    yield watch
    for host in hosts:
        host.close()


# --- current drivers ----------------------------------------------------------------

LEGACY = {"modern": False, "access": Access.BYTEWISE}


@pytest.mark.parametrize(
    "guest",
    [
        real("linux-6.12-le-4k"),
        real("linux-6.12-le-64k"),
        real("linux-6.12-v1-be-4k", access=Access.WORD),
        real("linux-6.12-v1-be-4k", page_size=64 << 10, access=Access.WORD),
        real("linux-6.12-le-4k", **LEGACY),
        real("linux-6.12-le-64k", **LEGACY),
        real("linux-6.12-v1-be-4k", **LEGACY),
        real("linux-6.12-v1-be-4k", page_size=64 << 10, **LEGACY),
    ],
    ids=lambda guest: f"{guest.name}-{guest.page_size >> 10}k-{guest.access.name}",
)
def test_a_current_driver_is_good(watch, guest):
    seen = watch(guest)

    assert (len(seen.first), seen.distinct, seen.inside) == (16, 16, 16)
    assert seen.first == tuple(range(seen.first[0], seen.first[0] + 16))
    if guest.page_size > 4096:
        assert seen.first[0] % 16 == 0
    assert seen.actual == [16, 0]
    assert (seen.state, seen.guest.oops, seen.guest.parked_pages) == ("GOOD", None, 0)


# --- drivers before 3.4 -------------------------------------------------------------

B64, B4 = "linux-3.3-be-64k", "linux-3.3-be-4k"
L64, L4 = "linux-3.3-le-64k", "linux-3.3-le-4k"


@pytest.mark.parametrize(
    ("name", "distinct", "actual", "state"),
    [
        (B64, {17, 18}, [256], "BUGGY"),
        (B4, {256}, [256, 0], "BUGGY"),
        (L64, {2, 3}, [16], "CLEANUP"),
        (L4, {16}, [16, 0], "GOOD"),
    ],
)
def test_old_drivers(watch, name, distinct, actual, state):
    seen = watch(real(name))

    assert len(seen.first) == seen.actual[0]
    assert seen.distinct in distinct
    assert seen.inside == (0 if "64k" in name else seen.distinct)
    assert seen.actual == actual
    assert seen.state == state


@pytest.mark.parametrize(("name", "pages"), [(B64, 256), (L64, 16)])
def test_those_with_large_pages_die_when_they_give_them_back(watch, name, pages):
    seen = watch(real(name))

    # All below memory, some up to 16 times: there are no such pages to free.
    assert max(Counter(seen.first).values()) <= 16
    assert max(seen.first) < RAM_START // 4096
    [deflated] = seen.recorder.of(PagesDeflated)
    assert len(deflated.pfns) == pages
    assert "not RAM" in seen.guest.oops
    assert seen.guest.parked_pages == pages * 16
    # The driver never reacts again.
    seen.host.notify_config()
    assert seen.guest.run() == 0


@pytest.mark.parametrize("name", [B4, L4])
def test_those_with_small_pages_are_healthy(watch, name):
    seen = watch(real(name))

    assert seen.guest.oops is None
    assert (seen.guest.parked_pages, seen.guest.harm) == (0, 0)


@pytest.mark.parametrize(
    ("name", "entries", "state", "dies"),
    [(B64, 8, "CLEANUP", True), (B4, 8, "GOOD", False)],
)
def test_eight_pages_are_not_enough_to_tell(watch, name, entries, state, dies):
    seen = watch(real(name), first_batch=8)

    assert (len(seen.first), seen.first_at) == (entries, 0.2)
    assert seen.actual == ([8] if dies else [8, 0])
    assert (seen.state, seen.guest.oops is not None) == (state, dies)


def test_no_page_at_all_is_written_as_0_and_the_next_round_brings_256(watch):
    seen = watch(real(B64), first_batch=0)

    assert (len(seen.first), seen.first_at) == (256, 0.2)
    assert seen.actual == [0, 256]
    assert seen.state == "BUGGY"
    assert seen.guest.oops


def test_the_unshifted_form_looks_good(watch):
    guest = real("linux-2.6.27-be-64k", {"target_order": Order.LITTLE})
    seen = watch(guest)

    assert (len(seen.first), seen.distinct, seen.inside) == (16, 16, 0)
    assert seen.actual == [16, 0]
    assert (seen.state, seen.guest.oops) == ("GOOD", None)


def test_a_driver_that_cannot_deflate_takes_all_memory_and_goes_on(watch):
    seen = watch(real("linux-2.6.26-le-4k"))

    assert (len(seen.first), seen.actual[0]) == (16, 16)
    assert seen.guest.parked_pages > RAM_PAGES - 1500
    assert seen.state == "CLEANUP"
    # Five times a second, writing ``actual`` each time.
    before = len(seen.actual)
    seen.run(seconds=seen.host.now() + 2)
    assert before + 8 <= len(seen.actual) <= before + 12
    assert set(seen.actual[before:]) == {seen.guest.parked_pages}


# --- later ones with VERSION_1 ------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "entries", "actual", "state"),
    [
        ("linux-4.0-v1-be-64k", 256, [65536, 0], "BUGGY"),
        ("linux-4.4-v1-be-64k", 16, [16, 0], "GOOD"),
    ],
)
def test_numbers_the_wrong_way_round(watch, name, entries, actual, state):
    seen = watch(real(name))

    assert (len(seen.first), seen.distinct, seen.inside) == (entries, entries, 0)
    right = [int.from_bytes(pfn.to_bytes(4, "little"), "big") for pfn in seen.first]
    assert all(RAM_START // 4096 < pfn < RAM_START // 4096 + RAM_PAGES for pfn in right)
    assert seen.actual == actual
    assert (seen.state, seen.guest.oops, seen.guest.parked_pages) == (state, None, 0)


# --- what else was seen -------------------------------------------------------------


def test_nobody_does_not_even_accept_features(watch):
    seen = watch(find("no-driver"))

    assert seen.device.query().features is None
    assert not seen.recorder.of(DeviceReset)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (B64, [(4, b"\0"), (5, b"\1"), (6, b"\0"), (7, b"\0")]),
        ("linux-4.0-v1-be-64k", [(4, b"\0\0\1\0")]),
        ("linux-6.12-le-64k", [(4, b"\x10\0\0\0")]),
    ],
)
def test_how_actual_arrives(watch, name, written):
    seen = watch(real(name))

    assert seen.host.writes[: len(written)] == written


@pytest.mark.parametrize(
    ("name", "poison", "accepted"),
    [
        ("linux-6.12-le-64k", False, 0x2F),
        ("linux-6.12-le-64k", True, 0x3F),
        (B64, False, 0x03),
    ],
)
def test_which_features_are_accepted(watch, name, poison, accepted):
    seen = watch(real(name), OFFERED, page_poison=poison)

    assert seen.device.query().features & OFFERED == accepted
