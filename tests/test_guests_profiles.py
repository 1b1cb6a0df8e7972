"""The table of guests, and the truth in it."""

from __future__ import annotations

import pytest

from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder, Defect, Judgement
from balloon_plugin.guests.access import Access
from balloon_plugin.guests.profiles import GUESTS, find
from balloon_plugin.guests.traits import Engine, Order, PfnForm, Start
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


def test_a_misspelt_guest_gets_a_hint():
    with pytest.raises(HostError, match=r"did you mean linux-3\.3-be-64k\?"):
        find("linux-3.3-be64k")


def test_an_unknown_guest_gets_the_list():
    with pytest.raises(HostError) as caught:
        find("vms")

    assert "did you mean" not in str(caught.value)
    assert ", ".join(GUESTS) in str(caught.value)
