"""The table of drivers against what is known of each kernel, fact by fact."""

from __future__ import annotations

import pytest

from balloon_plugin.guests.drivers import DRIVERS
from balloon_plugin.guests.traits import Engine, Lie, Order, PfnForm, Start
from balloon_plugin.layouts import Feature

LINUX = [
    *("linux-2.6.25", "linux-2.6.26", "linux-2.6.27", "linux-2.6.29", "linux-2.6.32"),
    *("linux-3.2", "linux-3.3", "linux-3.4", "linux-3.8", "linux-3.19", "linux-4.1"),
    *("linux-4.6", "linux-4.7", "linux-4.8", "linux-4.19", "linux-5.8", "linux-6.12"),
]
"""Every Linux, by age; Red Hat's old ones are for themselves."""


def between(first, last):
    """Return the kernels from the first to the last, both included."""
    return {*LINUX[LINUX.index(first) : LINUX.index(last) + 1]}


def those_that(shows):
    return {name for name in LINUX if shows(DRIVERS[name])}


def test_the_list_is_that_of_the_table():
    assert [name for name in DRIVERS if name.startswith("linux")] == LINUX


# --- what came and went with a kernel -----------------------------------------------


@pytest.mark.parametrize(
    ("shows", "first", "last"),
    [
        # 72e61eb40b55 swapped no more; 1a87228f swaps again
        (
            lambda driver: driver.target_order is Order.NATIVE,
            "linux-2.6.26",
            "linux-3.3",
        ),
        (
            lambda driver: driver.pfn_form is PfnForm.UNSHIFTED,
            "linux-2.6.25",
            "linux-2.6.27",
        ),
        (
            lambda driver: driver.pfn_form is PfnForm.WRONG_SHIFT,
            "linux-2.6.29",
            "linux-3.3",
        ),
        (lambda driver: driver.frees_by_wire, "linux-2.6.29", "linux-3.3"),
        (lambda driver: driver.counts_guest_pages, "linux-2.6.25", "linux-3.3"),
        (lambda driver: driver.unsigned_diff, "linux-2.6.25", "linux-2.6.26"),
        (lambda driver: driver.release_before_tell, "linux-2.6.25", "linux-2.6.32"),
        (lambda driver: not driver.zero_on_remove, "linux-2.6.25", "linux-3.3"),
        (lambda driver: driver.has_freeze, "linux-3.3", "linux-6.12"),
        (lambda driver: driver.compacts, "linux-3.8", "linux-6.12"),
        (lambda driver: driver.early_start, "linux-2.6.25", "linux-3.19"),
        (lambda driver: driver.engine is Engine.KTHREAD, "linux-2.6.25", "linux-4.1"),
        (lambda driver: driver.engine is Engine.WORKQUEUE, "linux-4.6", "linux-6.12"),
        (lambda driver: driver.start is Start.BLIND, "linux-4.6", "linux-4.7"),
        (
            lambda driver: driver.config_order_v1 is Order.NATIVE,
            "linux-3.19",
            "linux-3.19",
        ),
        (lambda driver: driver.pfn_order_v1 is Order.NATIVE, "linux-3.19", "linux-4.6"),
        (lambda driver: driver.idle_writes, "linux-2.6.25", "linux-4.19"),
        (lambda driver: driver.primes_stats, "linux-4.19", "linux-6.12"),
        (lambda driver: driver.aligns_target, "linux-6.12", "linux-6.12"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_linux_driver_does_from_one_kernel_to_another(shows, first, last):
    assert those_that(shows) == between(first, last)


@pytest.mark.parametrize(
    ("feature", "since"),
    [
        ("VIRTIO_BALLOON_F_MUST_TELL_HOST", "linux-2.6.25"),
        ("VIRTIO_RING_F_INDIRECT_DESC", "linux-2.6.32"),
        ("VIRTIO_BALLOON_F_STATS_VQ", "linux-3.2"),
        ("VIRTIO_BALLOON_F_DEFLATE_ON_OOM", "linux-3.19"),
        ("VIRTIO_F_VERSION_1", "linux-3.19"),
        ("VIRTIO_BALLOON_F_FREE_PAGE_HINT", "linux-5.8"),
        ("VIRTIO_BALLOON_F_PAGE_POISON", "linux-5.8"),
        ("VIRTIO_BALLOON_F_REPORTING", "linux-5.8"),
    ],
)
def test_since_when_a_feature_is_accepted(feature, since):
    mask = Feature[feature].mask

    assert those_that(lambda driver: driver.features & mask) == between(
        since, "linux-6.12"
    )


@pytest.mark.parametrize("name", LINUX)
def test_what_no_linux_driver_ever_did(name):
    driver = DRIVERS[name]

    # In every buggy kernel ``actual`` is written little-endian all the same.
    assert driver.actual_order is Order.LITTLE
    assert driver.writes_actual
    assert (driver.batch, driver.pfn_size, driver.retry) == (256, 4, 0.2)
    others = "asks_device fifo whole_batches all_or_nothing fails_silently sends_first"
    assert not any(getattr(driver, name) for name in (*others.split(), "full_buffers"))
    assert (driver.pause, driver.removable, driver.lie) == (0.0, True, Lie.NONE)


# --- Red Hat's ----------------------------------------------------------------------


def test_red_hat_6_5_is_the_2_6_32_that_says_goodbye_and_hibernates():
    before, driver = DRIVERS["linux-2.6.32"], DRIVERS["rhel-6.5"]

    assert driver.zero_on_remove
    assert driver.has_freeze
    assert driver.release_before_tell
    assert driver.features == before.features | Feature.VIRTIO_BALLOON_F_STATS_VQ.mask
    assert (driver.target_order, driver.pfn_form, driver.frees_by_wire) == (
        before.target_order,
        before.pfn_form,
        True,
    )


def test_red_hat_6_6_has_both_fixes_and_still_frees_before_it_tells():
    driver = DRIVERS["rhel-6.6"]

    assert (driver.target_order, driver.pfn_form) == (Order.LITTLE, PfnForm.RIGHT)
    assert (driver.counts_guest_pages, driver.frees_by_wire) == (False, False)
    assert driver.release_before_tell
    assert driver.features == DRIVERS["rhel-6.5"].features


# --- others -------------------------------------------------------------------------


def test_windows_sends_a_page_of_eight_byte_numbers():
    driver = DRIVERS["windows"]

    assert (driver.pfn_size, driver.batch) == (8, 512)
    assert driver.whole_batches
    assert driver.all_or_nothing
    assert driver.engine is Engine.EVENT


def test_freebsd_sends_native_numbers_whatever_was_negotiated():
    driver = DRIVERS["freebsd"]

    assert driver.pfn_order_v1 is Order.NATIVE
    assert not driver.features & Feature.VIRTIO_BALLOON_F_STATS_VQ.mask
    assert driver.sends_first


def test_the_viomb_drivers():
    openbsd, netbsd, big = (
        DRIVERS[name] for name in ("openbsd", "netbsd", "viomb-big")
    )

    assert openbsd.start is Start.READS
    assert openbsd.asks_device
    assert {openbsd.actual_order, netbsd.actual_order, big.actual_order} == {
        Order.NATIVE
    }
    assert (netbsd.full_buffers, openbsd.full_buffers) == (True, False)
    assert (netbsd.engine, openbsd.engine) == (Engine.KTHREAD, Engine.TASK)


def test_macos_mixes_up_its_units_and_never_writes():
    driver = DRIVERS["macos"]

    assert driver.engine is Engine.APPLE
    assert driver.counts_guest_pages
    assert not driver.writes_actual
    assert driver.start is Start.BLIND


def test_liars_are_like_an_honest_driver_but_for_what_they_say():
    honest, plain, perfect = (
        DRIVERS[name] for name in ("linux-3.4", "liar", "perfect-liar")
    )

    assert (plain.lie, perfect.lie) == (Lie.PLAIN, Lie.PERFECT)
    assert plain.features == perfect.features == honest.features
    assert plain.early_start == perfect.early_start == honest.early_start
