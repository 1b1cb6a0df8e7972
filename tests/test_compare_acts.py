"""What each act does: it really happens, to the guest and to the device."""

from __future__ import annotations

import dataclasses

import pytest
from courses import course

from balloon_plugin.compare import run
from balloon_plugin.compare.acts import ACTS, AWAY, MOVED_PAGES, OOM_UNITS
from balloon_plugin.compare.circumstance import RETARGET, TARGET, Act, Stop, Turn
from balloon_plugin.compare.circumstances import find as circumstance
from balloon_plugin.compare.clerk import Phase
from balloon_plugin.errors import HostError
from balloon_plugin.events import (
    ActualWritten,
    DeviceReset,
    PagesDeflated,
    PagesInflated,
    StatsReceived,
    TargetRequested,
)
from balloon_plugin.guests import find
from balloon_plugin.hookspecs import hookimpl

NEW = "linux-6.12-le-4k"
OLD = "linux-3.4-be-4k"


class Notes:
    """An observer that keeps events."""

    def __init__(self):
        self.events = []

    @hookimpl
    def balloon_event(self, event):
        self.events.append(event)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def full():
    """Give a guest its balloon; return its course, and all events from then on."""
    open_courses = []

    def full(guest, special="usual", policy="none"):
        notes = Notes()
        whole = course(guest, special, policy, None, notes)
        open_courses.append(whole)
        whole.test()
        whole.ask(Phase.GROW, TARGET)
        notes.events.clear()
        return whole, notes

    yield full
    for whole in open_courses:
        whole.close()


def do(whole, act, guest=""):
    """Let something happen, and run the guest until it waits."""
    ACTS[act](whole, Turn(act, Stop.FULL, guest))
    whole.guest.run(1000)


def test_every_act_can_be_done():
    assert set(ACTS) == set(Act)


# --- module reload ------------------------------------------------------------------


def test_a_module_is_removed_and_loaded_again(full):
    whole, notes = full(NEW)
    before = whole.guest.driver
    ACTS[Act.MODULE_RELOAD](whole, Turn(Act.MODULE_RELOAD, Stop.FULL))
    gone = (before.removed, whole.guest.parked_pages)
    whole.guest.run()

    # All pages came back before the device was reset, and then a new driver took them.
    assert gone == (True, 0)
    assert whole.guest.driver is not before
    kinds = [type(event) for event in notes.events]
    reset = kinds.index(DeviceReset)
    assert PagesDeflated in kinds[:reset]
    assert PagesInflated not in kinds[:reset]
    assert PagesInflated in kinds[reset:]
    assert whole.guest.parked_pages == TARGET


@pytest.mark.parametrize("guest", ["openbsd-le-4k", "macos-le-16k", "no-driver"])
def test_what_cannot_be_unloaded_is_not(full, guest):
    whole, notes = full(guest)
    before = whole.guest.driver
    do(whole, Act.MODULE_RELOAD)

    assert whole.guest.driver is before
    assert not notes.of(DeviceReset)


@pytest.mark.parametrize("act", [Act.MODULE_RELOAD, Act.HIBERNATION])
def test_a_driver_that_died_is_not_waited_for(full, act):
    guest = dataclasses.replace(find("linux-3.3-be-64k"), ram_start=1 << 30)
    whole, notes = full(guest, policy="probe")
    assert "not RAM" in whole.guest.oops
    before = whole.host.now()
    do(whole, act)

    assert whole.host.now() == before
    assert not notes.of(DeviceReset)


def test_a_driver_that_sleeps_is_waited_for(full):
    netbsd = dataclasses.replace(find("netbsd-le-4k").driver, removable=True)
    whole, _ = full(dataclasses.replace(find("netbsd-le-4k"), driver=netbsd))
    whole.set_target(0)
    whole.guest.run(1000)
    assert whole.guest.wake_at is not None
    do(whole, Act.MODULE_RELOAD)

    assert whole.guest.parked_pages == 0


# --- save and restore ---------------------------------------------------------------


@pytest.mark.parametrize("policy", ["none", "probe", "feature-bit", "evidence"])
@pytest.mark.parametrize("guest", [NEW, OLD, "linux-3.3-be-4k", "linux-3.3-be-64k"])
def test_another_device_goes_on_with_what_was_saved(full, guest, policy):
    whole, _ = full(guest, policy=policy)
    before, device = whole.device.query(), whole.device
    do(whole, Act.SAVE_RESTORE)
    after = whole.device.query()

    assert whole.device is not device
    for name in ("requested", "actual", "ballooned", "accepted", "features"):
        assert getattr(after, name) == getattr(before, name)
    assert after.verdict.judgement is before.verdict.judgement
    assert after.verdict.defects == before.verdict.defects


def test_the_driver_does_not_notice_a_migration(full):
    whole, notes = full(NEW)
    do(whole, Act.SAVE_RESTORE)
    steps = whole.guest.steps
    whole.set_target(0)
    whole.guest.run()

    assert not notes.of(DeviceReset)
    assert whole.guest.steps > steps
    assert whole.guest.parked_pages == 0


def test_only_the_device_in_charge_is_observed(full):
    whole, notes = full(NEW)
    before = whole.device
    do(whole, Act.SAVE_RESTORE)

    assert not before.plugins.is_registered(notes)
    assert not before.plugins.is_registered(whole.clerk)
    assert whole.device.plugins.is_registered(notes)
    assert whole.device.plugins.is_registered(whole.clerk)


def test_the_device_that_takes_over_offers_the_same(full):
    whole, _ = full(NEW, "all-features")
    before = whole.device.get_features()
    do(whole, Act.SAVE_RESTORE)

    assert whole.device.get_features() == before != 0


@pytest.mark.parametrize("stop", Stop, ids=lambda stop: stop.text)
@pytest.mark.parametrize("guest", [NEW, "linux-3.4-be-64k", "linux-3.3-le-4k"])
def test_a_migration_at_any_moment_changes_nothing_for_a_right_driver(guest, stop):
    usual, special = (
        run(find(guest), "evidence", circumstance(name))
        for name in ("usual", f"save-restore-in-{stop.text}")
    )

    for name in ("verdict", "harm_pages", "taken_pages", "parked_pages", "usable"):
        assert getattr(special, name) == getattr(usual, name)


# --- the user, and the guest's memory -----------------------------------------------


def test_the_user_asks_for_another_target(full):
    whole, notes = full(NEW)
    do(whole, Act.RETARGET)

    assert notes.of(TargetRequested) == [TargetRequested(RETARGET)]
    assert whole.guest.parked_pages == RETARGET


@pytest.mark.parametrize("guest", [OLD, NEW])
def test_the_host_asks_for_statistics_once(full, guest):
    whole, notes = full(guest, "stats-in-empty")
    do(whole, Act.STATS)
    once = len(notes.of(StatsReceived))
    whole.host.advance(5.0)
    whole.guest.run(1000)

    assert once == len(notes.of(StatsReceived)) == 1


def test_a_driver_with_the_feature_gives_back_a_batch_when_memory_is_short(full):
    whole, notes = full(NEW, "oom-in-idle")
    do(whole, Act.OOM)

    [given] = notes.of(PagesDeflated)
    assert len(given.pfns) == OOM_UNITS
    assert whole.guest.parked_pages == TARGET - OOM_UNITS
    assert notes.of(ActualWritten) == [ActualWritten(TARGET - OOM_UNITS)]
    # The user sees that, and asks again.
    assert whole.again


def test_a_driver_without_it_keeps_its_balloon(full):
    whole, notes = full("linux-3.3-le-4k", "oom-in-idle")
    do(whole, Act.OOM)

    assert not notes.of(PagesDeflated)
    assert whole.guest.parked_pages == TARGET
    assert not whole.again


def test_compaction_exchanges_pages_one_by_one_without_a_word(full):
    whole, notes = full(NEW)
    do(whole, Act.COMPACTION)

    kinds = [type(event) for event in notes.events]
    assert [kind for kind in kinds if kind in (PagesInflated, PagesDeflated)] == (
        [PagesInflated, PagesDeflated] * MOVED_PAGES
    )
    pages = {each.pfns for each in (*notes.of(PagesInflated), *notes.of(PagesDeflated))}
    assert len(pages) == 2 * MOVED_PAGES
    assert not notes.of(ActualWritten)
    assert whole.guest.parked_pages == TARGET


def test_kernels_before_3_8_move_no_balloon_pages(full):
    whole, notes = full("linux-3.4-le-4k")
    do(whole, Act.COMPACTION)

    assert not notes.of(PagesInflated)


def test_a_guest_hibernates_without_its_balloon_and_comes_back(full):
    whole, notes = full(NEW)
    before = whole.host.now()
    parked = []
    advance = whole.host.advance
    whole.host.advance = lambda seconds: (
        parked.append((whole.guest.parked_pages, seconds)),
        advance(seconds),
    )
    do(whole, Act.HIBERNATION)

    assert parked == [(0, AWAY)]
    assert whole.host.now() == before + AWAY
    assert len(notes.of(DeviceReset)) == 2
    assert whole.guest.parked_pages == TARGET


@pytest.mark.parametrize("guest", ["windows-le-4k", "linux-2.6.32-be-4k"])
def test_drivers_without_a_hook_for_it_hibernate_with_their_balloon(full, guest):
    whole, notes = full(guest, policy="evidence")
    parked = whole.guest.parked_pages
    do(whole, Act.HIBERNATION)

    assert whole.guest.parked_pages == parked
    assert not notes.of(DeviceReset)


def test_where_nobody_is_nobody_hibernates(full):
    whole, _ = full("no-driver")
    before = whole.host.now()
    do(whole, Act.HIBERNATION)

    assert whole.host.now() == before


def test_a_config_interrupt_for_nothing(full):
    whole, _ = full(OLD)
    before = whole.host.config_interrupts
    do(whole, Act.INTERRUPT)

    assert whole.host.config_interrupts == before + 1
    assert whole.guest.parked_pages == TARGET


# --- other guests -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "resets", "seconds"), [(Act.KEXEC, 1, 0), (Act.REBOOT, 2, AWAY)]
)
def test_another_guest_boots_on_the_same_machine(full, act, resets, seconds):
    whole, notes = full(OLD)
    host, before = whole.host, whole.host.now()
    do(whole, act, "linux-3.3-be-4k")

    assert whole.guest.profile.name == "linux-3.3-be-4k"
    assert whole.host is host
    assert len(notes.of(DeviceReset)) == resets
    assert whole.host.now() == before + seconds
    assert whole.again


def test_a_reset_comes_before_the_firmware_and_not_with_the_next_driver(full):
    whole, notes = full(OLD)
    ACTS[Act.REBOOT](whole, Turn(Act.REBOOT, Stop.FULL, OLD))

    assert len(notes.of(DeviceReset)) == 1
    assert whole.guest.steps == 0


def test_after_a_kexec_nothing_is_reset_until_the_next_driver_does_it(full):
    whole, notes = full(OLD)
    ACTS[Act.KEXEC](whole, Turn(Act.KEXEC, Stop.FULL, OLD))

    assert not notes.of(DeviceReset)
    assert whole.guest.steps == 0


def test_what_the_first_guest_lost_stays_lost(full):
    whole, _ = full("linux-3.3-be-64k", policy="none")
    lost = whole.guest.harm
    do(whole, Act.KEXEC, "linux-3.4-be-64k")

    assert whole.harm == lost > 0


def test_and_is_counted_in_the_row_of_the_whole_run():
    name = "kexec-into:linux-3.4-be-64k"
    row = run(find("linux-3.3-be-64k"), "none", circumstance(name))

    assert (row.judged, row.right) == ("linux-3.4-be-64k", True)
    assert row.harm_pages > 0


@pytest.mark.parametrize(
    ("guest", "other"),
    [
        (OLD, "linux-3.4-le-4k"),
        (OLD, "linux-4.4-v1-be-64k"),
        (NEW, "linux-3.4-le-4k"),
    ],
)
def test_a_kernel_boots_only_where_it_can_run(full, guest, other):
    whole, _ = full(guest)

    with pytest.raises(
        HostError, match=f"{other} cannot run on the machine of {guest}"
    ):
        do(whole, Act.KEXEC, other)


@pytest.mark.parametrize("other", ["linux-3.4-le-4k", "linux-6.1-le-4k"])
def test_on_an_old_bus_both_old_and_new_kernels_boot(full, other):
    whole, _ = full(NEW, "legacy-bus")
    do(whole, Act.KEXEC, other)

    assert whole.guest.profile.name == other
    assert not whole.guest.driver.accepted >> 32


@pytest.mark.parametrize("act", ["kexec", "reboot"])
def test_from_a_good_kernel_into_a_bad_one_and_back(act):
    good, bad = "linux-3.4-be-64k", "linux-3.3-be-64k"
    there = run(find(good), "evidence", circumstance(f"{act}-into:{bad}"))
    back = run(
        find(good), "evidence", circumstance(f"{act}-into:{bad}+{act}-into:{good}")
    )

    assert (there.judged, there.verdict, there.harm_pages) == (bad, "buggy", 0)
    assert (back.judged, back.verdict, back.harm_pages) == (good, "good", 0)
    assert back.usable
