"""Real kernels of both byte orders and page sizes, under each policy.

The kernel is Linux 6.12, with its own driver (which is right) and with one that has the
faults of drivers before Linux 3.4, or of others, by its parameters. docs/real-guests.md
tells how to build them. Each life is lived once, several side by side, and looked at by
as many tests as like.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest
from real_guests import PIECES, PRE34, STOCK, TARGETS, Life, find_tools, live

from balloon_plugin.boot.qemu import Transport
from balloon_plugin.events import ByteOrder, Defect, Judgement
from balloon_plugin.layouts import Feature

pytestmark = [pytest.mark.real, pytest.mark.slow]

LONG = os.environ.get("BALLOON_LONG") == "1"

SECONDS = 60.0 if LONG else 0.0
"""How long targets change; the shortest is once up and down through all of them."""

AT_ONCE = 12 if LONG else (os.cpu_count() or 1) + 1
"""Guests that live side by side; in a long life they mostly wait."""

GUESTS = ("arm64be-64k", "arm64be-4k", "arm64le-64k", "arm64le-4k")
LARGE_PAGES = ("arm64be-64k", "arm64le-64k")
MOST_ASKED = max(TARGETS) * PIECES


@pytest.fixture(scope="module")
def lived(request, require_real):
    """Give the record of a life; those of all selected tests begin at once."""
    tools = require_real(find_tools)
    lives = dict.fromkeys(
        item.callspec.params["life"]
        for item in request.session.items
        if item.module is request.module
    )
    # Processes: one daemon and one guest each, that no other guest's work delays.
    pool = ProcessPoolExecutor(AT_ONCE, mp_context=get_context("spawn"))
    futures = {life: pool.submit(live, life, tools, SECONDS) for life in lives}

    def record_of(life):
        record = futures[life].result()
        print(record)  # noqa: T201 - shown if the test fails
        return record

    yield record_of
    pool.shutdown(cancel_futures=True)


def each(*lives):
    return pytest.mark.parametrize("life", lives, ids=str)


def under(policies, guests=GUESTS, driver=STOCK, **more):
    return [
        Life(guest, driver, policy, **more) for guest in guests for policy in policies
    ]


# --- drivers that are right ---------------------------------------------------------

RIGHT = under(("none", "probe", "evidence"))


@each(
    *RIGHT,
    # Where pages are of 4 KiB and little-endian nothing of the old faults shows.
    *under(("none", "probe", "evidence"), ["arm64le-4k"], PRE34),
    *under(["evidence"], ["arm64be-64k"], transport=Transport.MODERN, packed=False),
    *under(["evidence"], ["arm64be-64k"], transport=Transport.PCI, packed=False),
)
def test_a_right_driver_is_believed_and_its_balloon_works(lived, life):
    record = lived(life)

    assert record.verdict.judgement is Judgement.GOOD
    assert record.alive
    assert record.usable
    assert record.parked == 0


@each(Life("arm64le-4k", order=ByteOrder.LITTLE, page=4096))
def test_a_driver_that_is_proved_right_is_not_tested(lived, life):
    record = lived(life)

    asked = next(i for i, line in enumerate(record.trace) if "user asks" in line)
    assert not [line for line in record.trace[:asked] if "inflates" in line]
    assert record.alive
    assert record.usable


# --- packed rings -------------------------------------------------------------------

RINGS = (
    *under(["none"], ["arm64be-4k", "arm64le-64k"], transport=Transport.MODERN),
    *under(["none"], ["arm64le-4k"], transport=Transport.PCI),
)


@each(*RINGS, *(replace(life, packed=False) for life in RINGS))
def test_a_ring_of_either_format_and_event_idx_carry_a_balloon(lived, life):
    record = lived(life)

    accepted = accepted_features(record)
    assert bool(accepted & Feature.VIRTIO_F_RING_PACKED.mask) is life.packed
    assert accepted & Feature.VIRTIO_RING_F_EVENT_IDX.mask
    assert record.alive
    assert record.usable
    assert record.parked == 0


@each(*under(["evidence"], ["arm64be-64k"], transport=Transport.MODERN))
def test_a_driver_that_knows_packed_rings_is_proved_right_by_that(lived, life):
    record = lived(life)

    assert "VIRTIO_F_RING_PACKED accepted" in str(record.verdict.evidence)
    assert record.alive
    assert record.usable


def accepted_features(record):
    """Return the features that the driver accepted, of which the trace tells."""
    (line,) = [line for line in record.trace if "accepts features" in line]
    return int(line.split()[-1], 16)


# --- no driver knows the bit --------------------------------------------------------


@each(*under(["feature-bit"]), *under(["feature-bit"], driver=PRE34))
def test_the_feature_bit_refuses_them_all_and_harms_none(lived, life):
    record = lived(life)

    assert record.alive
    assert record.refused
    assert record.reclaimed == record.parked == record.largest == 0


# --- 64 KiB pages before Linux 3.4: deflation frees pages that are in use -----------


@each(*under(["probe"], LARGE_PAGES, PRE34))
def test_the_probes_own_test_kills_a_guest_with_large_pages(lived, life):
    record = lived(life)

    assert "oopsed" in record.trouble
    assert any("leak_balloon" in line for line in record.console)
    assert record.reclaimed == 0, "the host has no part in this"


@each(*under(["none"], LARGE_PAGES, PRE34))
def test_believing_a_guest_with_large_pages_kills_it(lived, life):
    record = lived(life)

    assert record.trouble is not None
    assert record.reclaimed == 0, "none of the numbers it sends is in its RAM"


@each(*under(["evidence"], LARGE_PAGES, PRE34))
def test_evidence_holds_a_guest_with_large_pages_and_it_lives(lived, life):
    record = lived(life)

    assert record.verdict.judgement is Judgement.BUGGY
    assert Defect.PAGE_SHIFT in record.verdict.defects
    assert (Defect.ENDIAN_TARGET in record.verdict.defects) == ("be" in life.guest)
    assert record.alive
    assert record.refused
    assert record.reclaimed == 0


@each(*under(["evidence"], LARGE_PAGES, PRE34))
def test_what_is_held_is_one_batch_at_the_most(lived, life):
    assert 0 < lived(life).parked <= 256 * 65536


# --- 4 KiB pages, big-endian, before Linux 3.4: the target is read byte-swapped -----


@each(*under(["none"], ["arm64be-4k"], PRE34))
def test_believing_a_guest_that_swaps_its_target_takes_all_it_has(lived, life):
    record = lived(life)

    assert record.largest > 2 * MOST_ASKED
    assert not record.usable


@each(*under(["probe"], ["arm64be-4k"], PRE34))
def test_the_probe_refuses_a_guest_that_swaps_its_target(lived, life):
    record = lived(life)

    assert record.verdict.judgement is Judgement.BUGGY
    assert record.alive
    assert record.refused
    assert record.reclaimed == record.parked == 0


@each(*under(["evidence"], ["arm64be-4k"], PRE34))
def test_evidence_makes_the_balloon_of_such_a_guest_work(lived, life):
    record = lived(life)

    assert record.verdict.defects == (Defect.ENDIAN_TARGET,)
    assert record.alive
    assert record.usable
    assert record.parked == 0


# --- short of memory at the first batch ---------------------------------------------

SHORT = f"{PRE34}:max_first_batch=8"
WITHOUT = f"{PRE34}:max_first_batch=-1"


@each(*under(["probe"], ["arm64be-4k"], SHORT))
def test_a_short_first_batch_fools_the_probe(lived, life):
    record = lived(life)

    assert record.verdict.judgement is Judgement.GOOD
    assert record.largest > 2 * MOST_ASKED


@each(
    *under(["probe"], ["arm64be-64k"], SHORT),
    *under(["probe"], ["arm64be-64k"], WITHOUT),
)
def test_a_short_first_batch_saves_no_guest_from_the_probe(lived, life):
    assert "oopsed" in lived(life).trouble


@each(
    *under(["evidence"], ["arm64be-64k"], SHORT),
    *under(["evidence"], ["arm64be-64k"], WITHOUT),
)
def test_it_does_not_fool_evidence_where_pages_are_large(lived, life):
    record = lived(life)

    assert Defect.PAGE_SHIFT in record.verdict.defects
    assert record.alive
    assert record.refused
    assert record.reclaimed == 0


@each(
    *under(["evidence"], ["arm64be-4k"], SHORT),
    *under(["evidence"], ["arm64be-4k"], WITHOUT),
)
def test_nor_where_the_balloon_can_be_made_to_work(lived, life):
    record = lived(life)

    assert record.verdict.defects == (Defect.ENDIAN_TARGET,)
    assert record.alive
    assert record.usable


# --- VERSION_1 on big-endian guests, Linux 3.19 to 4.6 ------------------------------

OF_3_19 = (
    f"{PRE34}:pagesize_bug=0,native_pfn_bug=1,native_actual_bug=1,legacy_features=2"
)
OF_4_1 = f"{PRE34}:endian_bug=0,pagesize_bug=0,native_pfn_bug=1,legacy_features=2"
BIG = ("arm64be-64k", "arm64be-4k")


@each(*under(["evidence"], BIG, OF_3_19, transport=Transport.MODERN))
def test_evidence_translates_linux_3_19(lived, life):
    record = lived(life)

    assert set(record.verdict.defects) == {
        Defect.ENDIAN_TARGET,
        Defect.ACTUAL_ORDER,
        Defect.PFN_ORDER,
    }
    assert record.alive
    assert record.usable


@each(*under(["evidence"], BIG, OF_4_1, transport=Transport.MODERN))
def test_evidence_translates_linux_4_1(lived, life):
    record = lived(life)

    assert record.verdict.defects == (Defect.PFN_ORDER,)
    assert record.alive
    assert record.usable


@each(*under(["probe"], BIG, OF_4_1, transport=Transport.MODERN))
def test_linux_4_1_fools_the_probe_and_the_host_gets_nothing(lived, life):
    record = lived(life)

    assert record.verdict.judgement is Judgement.GOOD
    assert record.largest == MOST_ASKED
    assert record.reclaimed == 0


# --- before Linux 2.6.29 ------------------------------------------------------------

OF_2_6_27 = f"{PRE34}:pagesize_bug=2"
OF_2_6_25 = f"{PRE34}:unsigned_diff_bug=1"


@each(*under(["evidence"], LARGE_PAGES, OF_2_6_27, indirect=False))
def test_evidence_translates_unshifted_page_numbers(lived, life):
    record = lived(life)

    assert Defect.PAGE_UNITS in record.verdict.defects
    assert record.alive
    assert record.usable


@each(*under(["probe"], ["arm64le-4k"], OF_2_6_25, indirect=False))
def test_the_probe_starves_a_guest_that_cannot_deflate(lived, life):
    record = lived(life)

    assert not record.alive
    assert record.reclaimed == 0


@each(
    *under(
        ["evidence"], ["arm64le-4k"], OF_2_6_25, order=ByteOrder.LITTLE, indirect=False
    )
)
def test_evidence_holds_a_guest_that_cannot_deflate(lived, life):
    record = lived(life)

    assert Defect.NO_DEFLATE in record.verdict.defects
    assert record.alive
    assert record.refused
    assert record.reclaimed == 0


# --- targets that are read while they change ----------------------------------------


@each(
    *under(["none", "probe", "evidence"], ["arm64be-4k"], torn=1),
    # This one finds the significant bytes last.
    *under(["evidence"], ["arm64be-4k"], PRE34, torn=3),
    *under(["evidence"], ["arm64le-64k"], torn=1),
)
def test_a_torn_target_condemns_nobody(lived, life):
    record = lived(life)

    assert record.alive
    assert record.usable


# --- a verdict dies with its driver -------------------------------------------------

REBOOTED = Life("arm64be-64k", PRE34, earlier=STOCK)


@each(REBOOTED, replace(REBOOTED, guest="arm64be-4k"))
def test_a_good_kernel_before_a_reboot_is_no_alibi(lived, life):
    record = lived(life)

    assert record.verdict.judgement is Judgement.BUGGY
    assert Defect.ENDIAN_TARGET in record.verdict.defects
    assert record.alive


@each(replace(REBOOTED, driver=STOCK, earlier=PRE34))
def test_a_bad_one_is_no_stain(lived, life):
    record = lived(life)

    assert record.verdict.judgement is Judgement.GOOD
    assert record.alive
    assert record.usable
