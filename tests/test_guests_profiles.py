"""The table of guests, and the truth in it."""

from __future__ import annotations

import pytest

from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder, Defect, Judgement
from balloon_plugin.guests.access import Access
from balloon_plugin.guests.profiles import GUESTS, find
from balloon_plugin.guests.traits import Engine, Lie, Order, PfnForm, Start
from balloon_plugin.layouts import PAGE_SIZE, Feature


def defects_of(guest):
    """Read the defects from how the driver behaves, for comparison with the table."""
    driver, big = guest.driver, guest.byte_order is ByteOrder.BIG
    large = guest.page_size > PAGE_SIZE
    native = Order.NATIVE
    target_order = driver.config_order_v1 if guest.modern else driver.target_order
    actual_order = driver.config_order_v1 if guest.modern else driver.actual_order
    signs = {
        Defect.ENDIAN_TARGET: big and target_order is native,
        Defect.PAGE_SHIFT: large and driver.pfn_form is PfnForm.WRONG_SHIFT,
        Defect.PAGE_UNITS: large and driver.pfn_form is PfnForm.UNSHIFTED,
        Defect.PFN_ORDER: big and guest.modern and driver.pfn_order_v1 is native,
        Defect.ACTUAL_ORDER: big and actual_order is native,
        Defect.PFN_WIDTH: driver.pfn_size != 4,
        Defect.STALE_ENTRIES: driver.full_buffers,
        Defect.UNIT_SCALE: large
        and driver.counts_guest_pages
        and driver.pfn_form is PfnForm.RIGHT,
        Defect.NO_ACTUAL: not driver.writes_actual,
        Defect.NO_DEFLATE: driver.unsigned_diff,
        Defect.NEEDS_CONFIG_IRQ: driver.start is not Start.ACTS,
    }
    return {defect for defect, shown in signs.items() if shown}


@pytest.mark.parametrize("guest", GUESTS.values(), ids=lambda guest: guest.name)
def test_the_defects_are_those_of_the_driver_on_that_cpu(guest):
    assert set(guest.defects) == defects_of(guest)


@pytest.mark.parametrize("guest", GUESTS.values(), ids=lambda guest: guest.name)
def test_a_row_makes_sense(guest):
    knows_version_1 = guest.driver.features & Feature.VIRTIO_F_VERSION_1.mask
    present = guest.driver.engine is not Engine.ABSENT

    assert guest.driver.source
    assert knows_version_1 or not guest.modern
    assert present == (guest.truth is not Judgement.UNDECIDED)
    assert guest.modern or guest.access is Access.BYTEWISE
    if present:
        size = f"{guest.page_size >> 10}k"
        assert guest.name.endswith(f"-{guest.byte_order.value[0]}e-{size}")


def test_the_truth_of_the_first_guests():
    buggy = {name for name, guest in GUESTS.items() if guest.truth is Judgement.BUGGY}

    assert {"linux-3.3-be-4k", "linux-3.3-be-64k"} <= buggy
    assert find("linux-3.3-be-64k").defects == (
        Defect.ENDIAN_TARGET,
        Defect.PAGE_SHIFT,
    )
    for good in ("3.3-le-4k", "3.4-be-4k", "3.4-be-64k", "3.4-le-4k", "6.1-le-4k"):
        assert find(f"linux-{good}").truth is Judgement.GOOD


CLASSES = {
    "Linux 2.6.25": ["linux-2.6.25-le-4k", "linux-2.6.25-be-4k", "linux-2.6.25-be-64k"],
    "Linux 2.6.26": ["linux-2.6.26-le-4k", "linux-2.6.26-be-4k", "linux-2.6.26-be-64k"],
    "2.6.29 to 3.3, big-endian, 4K": ["linux-2.6.32-be-4k", "linux-3.3-be-4k"],
    "2.6.29 to 3.3, big-endian, 64K": ["linux-2.6.29-be-64k", "linux-3.3-be-64k"],
    "2.6.29 to 3.3, little-endian": ["linux-3.3-le-16k", "linux-3.3-le-64k"],
    "the unshifted form": ["linux-2.6.27-be-64k", "linux-2.6.27-le-64k"],
    "RHEL 6": ["rhel-6.5-be-64k", "rhel-6.6-be-64k"],
    "Ubuntu 12.04, SLES 11": ["ubuntu-12.04-be-4k", "sles-11-be-64k"],
    "3.4": ["linux-3.4-be-4k", "linux-3.4-be-64k", "linux-3.4-le-4k"],
    "3.19 with VERSION_1": ["linux-3.19-v1-be-4k", "linux-4.0-v1-be-64k"],
    "4.1 to 4.6 with VERSION_1": ["linux-4.4-v1-be-4k", "linux-4.6-v1-be-64k"],
    "4.6 to 4.7": ["linux-4.6-le-4k", "linux-4.7-v1-be-4k"],
    "all features": ["linux-5.8-le-4k", "linux-6.12-le-4k", "linux-6.12-v1-be-4k"],
    "fixed, of every page size": [
        *("linux-3.4-be-8k", "linux-3.4-be-16k", "linux-3.4-be-64k"),
        *("linux-3.4-be-256k", "linux-6.12-be-256k", "linux-6.12-le-16k"),
    ],
    "Windows": ["windows-le-4k", "windows-v1-le-4k"],
    "BSDs": ["freebsd-le-4k", "freebsd-v1-be-4k", "openbsd-le-4k", "netbsd-le-4k"],
    "viomb, big-endian": ["viomb-be-4k"],
    "macOS": ["macos-le-16k"],
    "nobody": ["no-driver"],
    "malice": ["liar-be-4k", "liar-le-4k", "perfect-liar-be-4k", "perfect-liar-le-4k"],
}
"""What there is to be in the zoo, and who stands for it."""


@pytest.mark.parametrize("names", CLASSES.values(), ids=CLASSES)
def test_every_class_is_there(names):
    assert set(names) <= set(GUESTS)


def test_what_was_not_read_in_source_is_marked():
    marked = {name for name, guest in GUESTS.items() if guest.second_hand}

    assert marked == {
        "ubuntu-12.04-be-4k",
        "sles-11-be-64k",
        "linux-4.0-v1-be-64k",
        "linux-4.7-v1-be-4k",
        "windows-v1-le-4k",
        "viomb-be-4k",
        "macos-le-16k",
    }


def test_whose_balloon_no_host_can_use():
    """Bits of page numbers are lost, it never deflates, it lies, or nobody is there."""
    unusable = {name for name, guest in GUESTS.items() if guest.unusable}

    assert unusable == {
        guest.name
        for guest in GUESTS.values()
        if {Defect.PAGE_SHIFT, Defect.NO_DEFLATE} & set(guest.defects)
        or guest.driver.lie is not Lie.NONE
        or guest.driver.engine is Engine.ABSENT
    }


@pytest.mark.parametrize("guest", GUESTS.values(), ids=lambda guest: guest.name)
def test_a_harmless_defect_does_not_make_a_guest_buggy(guest):
    """The truth is BUGGY for any defect but one, and for a liar."""
    serious = set(guest.defects) - {Defect.NEEDS_CONFIG_IRQ}
    lies = guest.driver.lie is not Lie.NONE

    assert (guest.truth is Judgement.BUGGY) == bool(serious or lies)


def test_where_ram_begins_and_how_the_bus_is_reached():
    for guest in GUESTS.values():
        assert guest.ram_start in {0, 0x4000_0000}
        assert guest.ram_start == 0 or (guest.modern and guest.access is Access.WORD)
    channels = {g.name for g in GUESTS.values() if g.access is Access.CHANNEL}
    # s390x has pages of 4 KiB and is big-endian.
    assert channels
    assert all(name.endswith("-v1-be-4k") for name in channels)


def test_a_misspelt_guest_gets_a_hint():
    with pytest.raises(HostError, match=r"did you mean linux-3\.3-be-64k\?"):
        find("linux-3.3-be64k")


def test_of_an_unknown_guest_one_is_told_where_the_list_is():
    with pytest.raises(HostError) as caught:
        find("vms")

    assert "did you mean" not in str(caught.value)
    assert "compare --guests' lists all" in str(caught.value)
