"""Simulated drivers that report and hint, in front of a real device."""

from __future__ import annotations

import contextlib

import pytest
from fakes import Recorder

from balloon_plugin.events import Judgement, PagesHinted, PagesReported
from balloon_plugin.features import DeviceOptions
from balloon_plugin.guests.free_pages import AT_ONCE, DELAY
from balloon_plugin.guests.guest import Guest
from balloon_plugin.guests.profiles import find
from balloon_plugin.guests.traits import Conditions
from balloon_plugin.hosts.simulated import Setup, SimulatedHost
from balloon_plugin.manager import make_device
from balloon_plugin.status import Hints

BLOCK = 1 << 20
RAM = 64 << 20

NEW = ("linux-6.12-le-4k", "linux-6.1-v1-be-64k", "linux-6.12-v1-be-4k")
OLD = ("linux-3.4-le-4k", "linux-4.4-be-64k", "windows-le-4k")


class Scene:
    """A guest on a machine whose device believes it."""

    def __init__(self, stack, name, conditions=None, queue_size=128, **options):
        self.recorder = Recorder()
        self.device = make_device(
            "none", observers=[self.recorder], options=DeviceOptions(**options)
        )
        profile = find(name)
        setup = Setup(
            ram_size=RAM,
            ram_start=profile.ram_start,
            byte_order=profile.byte_order,
            legacy=not profile.modern,
            queue_size=queue_size,
        )
        self.host = stack.enter_context(SimulatedHost(self.device, setup))
        self.guest = Guest(profile, self.host, conditions or Conditions())
        self.guest.run()

    def wait(self, seconds=DELAY):
        self.host.advance(seconds)
        self.guest.run()

    def pages(self, kind):
        return sum(count for event in self.recorder.of(kind) for _, count in event.runs)


@pytest.fixture
def boot():
    with contextlib.ExitStack() as stack:
        yield lambda *args, **more: Scene(stack, *args, **more)


# --- reports ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NEW)
def test_a_new_kernel_reports_its_free_blocks_once(boot, name):
    scene = boot(name, reporting=True)
    assert scene.device.query().reported == 0

    scene.wait()
    first = scene.device.query().reported
    scene.wait()
    scene.wait()

    assert 0 < first < RAM // 4096
    assert first % (BLOCK // 4096) == 0
    assert scene.device.query().reported == first
    assert scene.host.discarded_pages == first
    assert scene.device.query().faults == 0


@pytest.mark.parametrize("name", OLD)
def test_an_old_driver_reports_and_hints_nothing(boot, name):
    scene = boot(name, reporting=True, hinting=True)

    scene.wait(10)

    assert scene.pages(PagesReported) == scene.pages(PagesHinted) == 0


@pytest.mark.parametrize("name", NEW)
def test_blocks_that_were_in_the_balloon_are_reported_again(boot, name):
    scene = boot(name, reporting=True)
    scene.wait()
    first = scene.device.query().reported
    scene.device.set_target(8192)
    scene.wait()
    assert scene.device.query().actual == 8192

    scene.device.set_target(0)
    scene.wait()
    scene.wait()

    assert scene.device.query().reported > first
    assert scene.guest.lost_pages == 0


def test_a_ring_smaller_than_a_report_is_enough(boot):
    scene = boot("linux-6.12-le-4k", queue_size=4, reporting=True)

    scene.wait()

    assert scene.device.query().reported > 4 * BLOCK // 4096
    assert AT_ONCE > 4


def test_while_nothing_may_be_given_back_reports_are_answered(boot):
    scene = boot("linux-6.12-le-4k", reporting=True)
    scene.device.set_inhibited("a device")

    scene.wait()

    assert scene.pages(PagesReported) > 0
    assert scene.host.discarded_pages == 0


def test_a_kernel_that_fills_free_pages_with_zeros_gets_zeros(boot):
    poisoning = Conditions(page_poison=True)

    scene = boot("linux-6.12-le-4k", poisoning, reporting=True, page_poison=True)
    scene.wait()

    assert scene.host.discarded_pages == scene.device.query().reported > 0


def test_reports_go_on_after_hibernation_and_a_reload(boot):
    scene = boot("linux-6.12-le-4k", reporting=True)
    scene.wait()

    scene.guest.driver.freeze()
    scene.guest.run()
    scene.guest.driver.thaw()
    scene.guest.run()
    scene.wait()
    awake = scene.device.query().reported
    scene.guest.driver.remove()
    scene.guest.run()
    scene.guest.insert_module()
    scene.guest.run()
    scene.wait()

    assert awake > 0
    assert scene.device.query().reported > 0
    assert scene.guest.lost_pages == 0


# --- hints --------------------------------------------------------------------------


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("name", NEW)
def test_all_free_blocks_are_hinted_when_asked_for(boot, name, statistics):
    scene = boot(name, hinting=True, reporting=True, statistics=statistics)
    scene.wait()

    command = scene.device.start_hinting()
    scene.guest.run()
    told = scene.device.query().hints
    scene.device.stop_hinting()
    scene.guest.run()

    assert told == Hints(command, 0, scene.device.query().reported)
    assert scene.pages(PagesHinted) == told.pages > 0
    assert scene.host.discarded_pages == scene.device.query().reported


def test_each_command_is_obeyed_once(boot):
    scene = boot("linux-6.12-le-4k", hinting=True)
    scene.device.start_hinting()
    scene.guest.run()
    first = scene.pages(PagesHinted)

    scene.host.notify_config()
    scene.guest.run()
    again = scene.pages(PagesHinted)
    scene.device.start_hinting()
    scene.guest.run()

    assert again == first
    assert scene.pages(PagesHinted) == 2 * first


def test_without_a_command_nothing_is_hinted(boot):
    scene = boot("linux-6.12-le-4k", hinting=True)

    scene.host.notify_config()
    scene.wait(10)

    assert scene.pages(PagesHinted) == 0


# --- under a policy that tests ------------------------------------------------------


@pytest.mark.parametrize("name", NEW)
def test_what_a_driver_tells_of_free_pages_is_no_part_of_a_test(name):
    everything = DeviceOptions(reporting=True, hinting=True, page_poison=True)
    device = make_device("probe", options=everything)
    profile = find(name)
    setup = Setup(
        ram_size=RAM,
        ram_start=profile.ram_start,
        byte_order=profile.byte_order,
        legacy=not profile.modern,
    )
    with SimulatedHost(device, setup) as host:
        guest = Guest(profile, host)
        for _ in range(5):
            guest.run()
            host.advance(1.0)

        assert device.query().verdict.judgement is Judgement.GOOD
        assert guest.lost_pages == 0
