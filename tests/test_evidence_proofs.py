"""What features prove: exactly the truth table of ``drivers.md``, section 4."""

from __future__ import annotations

import itertools

import pytest

from balloon_plugin.events import ByteOrder, GuestFacts
from balloon_plugin.policies.evidence import proofs
from balloon_plugin.policies.evidence.drivers import FIXED_PAGE, kinds
from balloon_plugin.policies.evidence.session import Session

STATS, OOM, HINT, REPORTING = 1 << 1, 1 << 2, 1 << 3, 1 << 5
INDIRECT, VERSION_1, PACKED = 1 << 28, 1 << 32, 1 << 34
SAFE = 22
ORDERS = (None, *ByteOrder)
PAGES = (None, 4096, 65536)
BITS = (1, STATS, OOM, HINT, REPORTING, INDIRECT, VERSION_1, PACKED, 1 << SAFE)


def table(features, order, page):
    """Say by which row of the truth table a driver is believed at once, or None."""
    little_4k = order is ByteOrder.LITTLE and page == 4096
    if features & 1 << SAFE:
        return "ENDIAN_SAFE"
    if features & (HINT | REPORTING | PACKED):
        return "bits 3, 5 and 34"
    if features & VERSION_1:
        return "V1, little-endian" if order is ByteOrder.LITTLE else None
    if features & OOM:
        return "bit 2"
    # "2.6.25/26 cannot deflate": only features that they do not know rule those out.
    return "LE, 4k" if little_4k and features & (INDIRECT | STATS) else None


def find(features, order=None, page=None, endian_safe=SAFE):
    session = Session(GuestFacts((), order, page))
    if features is not None:
        session.accept(features)
    return proofs.find(session, endian_safe)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("page", PAGES)
def test_a_proof_is_found_exactly_where_the_table_has_one(order, page):
    for chosen in itertools.product((False, True), repeat=len(BITS)):
        features = sum(itertools.compress(BITS, chosen))

        proof = find(features, order, page)

        assert (proof is not None) is (table(features, order, page) is not None)


def test_nothing_is_proved_before_features_are_accepted():
    assert find(None, ByteOrder.LITTLE, 4096) is None


@pytest.mark.parametrize(
    ("features", "order", "page", "seen"),
    [
        (HINT | VERSION_1, None, None, "VIRTIO_BALLOON_F_FREE_PAGE_HINT accepted"),
        (REPORTING, None, None, "VIRTIO_BALLOON_F_REPORTING accepted"),
        (PACKED, ByteOrder.BIG, 65536, "VIRTIO_F_RING_PACKED accepted"),
        (OOM, ByteOrder.BIG, 65536, "VIRTIO_BALLOON_F_DEFLATE_ON_OOM accepted"),
        (VERSION_1, ByteOrder.LITTLE, None, "VIRTIO_F_VERSION_1 accepted"),
        (INDIRECT, ByteOrder.LITTLE, 4096, "VIRTIO_RING_F_INDIRECT_DESC accepted"),
        (STATS, ByteOrder.LITTLE, 4096, "VIRTIO_BALLOON_F_STATS_VQ accepted"),
        (1 << SAFE | HINT, None, None, "VIRTIO_BALLOON_F_ENDIAN_SAFE accepted"),
    ],
)
def test_a_proof_names_the_feature(features, order, page, seen):
    proof = find(features, order, page)

    assert proof.seen == seen
    assert proof.shows[0].isupper()
    assert proof.shows.endswith(".")


def test_a_bit_that_was_not_offered_proves_nothing():
    assert find(1 << SAFE, endian_safe=None) is None
    assert find(1 << SAFE, endian_safe=23) is None
    assert find(1 << 23, endian_safe=23).bit == 23


def test_a_proof_leaves_right_drivers_and_those_that_features_say_nothing_of():
    every = kinds(GuestFacts(()), None)

    left = proofs.proven(every)

    assert {kind.name for kind in left if not kind.defects} == {
        "a driver that is right"
    }
    assert [kind for kind in left if kind.defects] == list(FIXED_PAGE)
