"""A queue in the format that was negotiated."""

from __future__ import annotations

import pytest

from balloon_plugin.events import ByteOrder
from balloon_plugin.memory import GuestMemory, Region
from balloon_plugin.virtqueue import (
    RING_FEATURES,
    PackedQueue,
    Ring,
    SplitQueue,
    distance,
    open_queue,
)

INDIRECT_DESC, EVENT_IDX, VERSION_1, PACKED = 1 << 28, 1 << 29, 1 << 32, 1 << 34


@pytest.fixture
def memory():
    return GuestMemory([Region(0, memoryview(bytearray(0x4000)))])


def a_ring(features, native=ByteOrder.LITTLE):
    return Ring(8, 0, 0x1000, 0x2000, features, native)


@pytest.mark.parametrize(
    ("features", "kind", "start"),
    [(0, SplitQueue, 0), (PACKED | VERSION_1, PackedQueue, 0x8000_8000)],
)
def test_the_format_is_what_the_driver_accepted(memory, features, kind, start):
    queue = open_queue(memory, a_ring(features))

    assert type(queue) is kind
    assert queue.base == start


@pytest.mark.parametrize(("features", "base"), [(0, 7), (PACKED, 0x0003_0003)])
def test_a_queue_goes_on_from_its_base(memory, features, base):
    assert open_queue(memory, a_ring(features), base).base == base


@pytest.mark.parametrize(
    ("features", "start", "end", "count"),
    [
        (0, 3, 7, 4),
        (0, 0xFFFE, 1, 3),
        (PACKED, 0x8003_8003, 0x8007_8007, 4),
        (PACKED, 0x8006_8006, 0x0001_0001, 3),
        (PACKED, 0x0006_0006, 0x8001_8001, 3),
    ],
)
def test_there_are_so_many_buffers_between_two_bases(features, start, end, count):
    assert distance(a_ring(features), start, end) == count


@pytest.mark.parametrize(
    ("features", "order"), [(0, ByteOrder.BIG), (VERSION_1, ByteOrder.LITTLE)]
)
def test_a_legacy_ring_is_native_and_a_modern_one_little_endian(features, order):
    assert a_ring(features, ByteOrder.BIG).byte_order is order


def test_a_ring_knows_what_was_negotiated():
    known = [
        (ring.indirect, ring.event_idx, ring.packed)
        for ring in (a_ring(0), a_ring(RING_FEATURES))
    ]

    assert known == [(False, False, False), (True, True, True)]
    assert RING_FEATURES == INDIRECT_DESC | EVENT_IDX | PACKED
