from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.events import ByteOrder
from balloon_plugin.layouts import StatTag
from balloon_plugin.stats import MAX_STATS, parse

LITTLE = bytes.fromhex("0400 0010000000000000")
BIG = bytes.fromhex("0004 0000000000001000")


@pytest.mark.parametrize(
    ("data", "order"), [(LITTLE, ByteOrder.LITTLE), (BIG, ByteOrder.BIG)]
)
def test_an_entry_is_a_tag_and_a_value(data, order):
    assert parse(data, order) == ((StatTag.VIRTIO_BALLOON_S_MEMFREE, 4096),)


def test_order_duplicates_and_unknown_tags_are_kept():
    sent = ((5, 1), (0xFFFE, 2), (0, 2**64 - 1), (5, 3))
    data = b"".join(struct.pack("<HQ", *entry) for entry in sent)

    assert parse(data, ByteOrder.LITTLE) == sent


def test_an_incomplete_entry_is_ignored():
    assert parse(LITTLE + LITTLE[:9], ByteOrder.LITTLE) == ((4, 4096),)
    assert parse(LITTLE[:9], ByteOrder.LITTLE) == ()
    assert parse(b"", ByteOrder.BIG) == ()


def test_entries_beyond_the_bound_are_ignored():
    stats = parse(LITTLE * MAX_STATS + BIG, ByteOrder.LITTLE)

    assert stats == ((4, 4096),) * MAX_STATS
    assert len(StatTag) <= MAX_STATS


@given(st.binary(max_size=1000), st.sampled_from(ByteOrder))
def test_any_bytes_can_be_read(data, order):
    stats = parse(data, order)

    assert len(stats) == min(len(data) // 10, MAX_STATS)
    assert data.startswith(
        b"".join(
            tag.to_bytes(2, order.value) + value.to_bytes(8, order.value)
            for tag, value in stats
        )
    )
