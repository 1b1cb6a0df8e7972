"""A whole handshake: from the reset to the verdict, with a simulated guest.

The driver's share is part of it: its rings, its memory, and its bus.
"""

from __future__ import annotations

import pytest

from balloon_plugin import make_device
from balloon_plugin.events import Judgement
from balloon_plugin.guests.guest import Guest
from balloon_plugin.guests.profiles import find
from balloon_plugin.hosts.simulated import Setup, SimulatedHost

GUESTS = "linux-6.1-le-4k", "linux-3.4-be-4k", "linux-3.4-be-64k"
POLICIES = "probe", "evidence"


@pytest.fixture
def boot():
    """Give what boots a guest, after it turned off the one before."""
    hosts = []

    def boot(name, policy):
        while hosts:
            hosts.pop().close()
        profile = find(name)
        setup = Setup(
            ram_start=profile.ram_start,
            byte_order=profile.byte_order,
            legacy=not profile.modern,
        )
        device = make_device(policy)
        hosts.append(SimulatedHost(device, setup))
        return device, Guest(profile, hosts[-1])

    yield boot
    for host in hosts:
        host.close()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", GUESTS)
def test_handshake(benchmark, boot, name, policy, book, yardstick):
    benchmark.group = "handshake"
    devices = []

    def setup():
        yardstick.look()
        device, guest = boot(name, policy)
        devices.append(device)
        return (guest,), {}

    benchmark.pedantic(Guest.run, setup=setup, rounds=40, warmup_rounds=2)

    assert devices[-1].query().verdict.judgement is Judgement.GOOD
    what = f"handshake of {name} with {policy}"
    book.time(what, min(benchmark.stats.stats.data), (2, "ms"), yardstick)
