"""The configuration space and the page numbers of a buffer, against second readings."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin import core
from balloon_plugin.core import ConfigSpace, decode
from balloon_plugin.events import ByteOrder, Translation

U32 = st.integers(0, 2**32 - 1)
OFFSETS = st.integers(0, 20) | st.sampled_from([255, 2**32 - 1, 2**63, 2**70])


# --- reading ------------------------------------------------------------------------


@given(U32, U32, U32, OFFSETS, st.integers(0, 64))
def test_a_read_is_exact_little_endian_and_zero_outside(
    num_pages, actual, poison_val, offset, size
):
    config = ConfigSpace(actual, poison_val)
    fields = (num_pages, actual, 0, poison_val)
    space = b"".join(value.to_bytes(4, "little") for value in fields)

    data = config.read(offset, size, num_pages)

    expected = [space[at] if at < 16 else 0 for at in range(offset, offset + size)]
    assert list(data) == expected


@pytest.mark.parametrize(
    ("offset", "size", "whole"),
    [
        (0, 4, True),
        (0, 16, True),
        (0, 8, True),
        (3, 1, True),
        (2, 2, True),
        (0, 0, False),
        (3, 0, False),
        (0, 1, False),
        (0, 3, False),
        (1, 1, False),
        (2, 1, False),
        (4, 4, False),
        (12, 4, False),
        (2**70, 4, False),
    ],
)
def test_the_target_is_read_where_its_last_byte_is(offset, size, whole):
    assert core.reads_target(offset, size) is whole


@pytest.mark.parametrize(
    ("reads", "target"),
    [
        ([(0, 4, 0x04030201)], 0x04030201),
        ([(0, 16, 0x04030201)], 0x04030201),
        ([(0, 2, 0x04030201), (2, 2, 0x0D0C0B0A)], 0x0D0C0201),
        ([(0, 4, 5), (4, 4, 7), (8, 8, 7), (2, 0, 7)], 5),
    ],
)
def test_what_was_read_of_the_target_is_known_byte_by_byte(reads, target):
    space = core.ConfigSpace()

    for offset, size, num_pages in reads:
        space.read(offset, size, num_pages)

    assert space.target == target


# --- writing ------------------------------------------------------------------------


ASCENDING_SPLITS = [
    list(itertools.pairwise([0, *cuts, 4]))
    for count in range(4)
    for cuts in itertools.combinations([1, 2, 3], count)
]
"""All ways to write four bytes in ascending accesses."""


@pytest.mark.parametrize("split", ASCENDING_SPLITS, ids=str)
@given(before=U32, after=U32)
def test_actual_is_never_torn_by_ascending_writes(split, before, after):
    config = ConfigSpace()
    config.write(4, before.to_bytes(4, "little"))
    data = after.to_bytes(4, "little")

    seen = []
    for start, end in split:
        whole = config.write(4 + start, data[start:end])
        seen.append((whole, config.actual))

    *early, last = seen
    assert early == [(False, before)] * len(early)
    assert last == (True, after)


@given(st.lists(st.tuples(OFFSETS, st.binary(max_size=20)), max_size=12))
def test_fields_take_effect_when_their_last_byte_is_written(writes):
    config = ConfigSpace()
    staged = bytearray(16)
    actual = poison_val = 0

    for offset, data in writes:
        touched = set()
        for at, byte in enumerate(data, offset):
            if at < 16:
                staged[at] = byte
                touched.add(at)
        if 7 in touched:
            actual = int.from_bytes(staged[4:8], "little")
        if 15 in touched:
            poison_val = int.from_bytes(staged[12:16], "little")

        whole = config.write(offset, data)

        assert whole is (7 in touched)
        assert (config.actual, config.poison_val) == (actual, poison_val)
        assert len(config.save()["config"]) == 32


def test_poison_is_not_actual():
    config = ConfigSpace()
    config.write(4, bytes([16, 0, 0, 0]))

    whole = config.write(12, bytes([0xAA] * 4))

    assert not whole
    assert config.actual == 16
    assert config.poison_val == 0xAAAAAAAA


def test_a_write_of_the_whole_space_never_changes_the_target():
    config = ConfigSpace()
    stale = (999).to_bytes(4, "little")
    actual = (16).to_bytes(4, "little")

    whole = config.write(0, stale + actual + bytes(8))

    assert whole
    assert config.actual == 16
    assert config.read(0, 4, 5) == bytes([5, 0, 0, 0])


def test_the_free_page_hint_is_not_the_drivers_to_write():
    config = ConfigSpace()

    config.write(8, b"\xff\xff\xff\xff")

    assert config.read(0, 16, 0) == bytes(16)


@given(OFFSETS.filter(lambda offset: offset >= 16), st.binary(max_size=64))
def test_a_write_behind_the_end_changes_nothing(offset, data):
    config = ConfigSpace(7, 9)

    whole = config.write(offset, data)

    assert not whole
    assert (config.actual, config.poison_val) == (7, 9)


def test_a_write_that_reaches_over_the_end_counts_as_far_as_it_goes():
    config = ConfigSpace()

    config.write(12, b"\x01\x00\x00\x00" + b"\xff" * 100)

    assert config.poison_val == 1
    assert len(config.read(0, 16, 0)) == 16


def test_bytes_of_an_unfinished_write_are_not_to_be_read():
    config = ConfigSpace()
    config.write(4, (255).to_bytes(4, "little"))

    config.write(4, b"\x00\x01")

    assert config.read(4, 4, 0) == (255).to_bytes(4, "little")


@given(st.lists(st.tuples(OFFSETS, st.binary(max_size=20)), max_size=6), OFFSETS)
def test_a_restored_space_goes_on_as_if_nothing_had_happened(writes, offset):
    config = ConfigSpace()
    for at, data in writes:
        config.write(at, data)

    restored = ConfigSpace.load(json.loads(json.dumps(config.save())))

    assert restored == config
    for space in config, restored:
        space.write(offset, b"\x01")
    assert restored == config


# --- page numbers -------------------------------------------------------------------


@given(st.binary(max_size=200), st.sampled_from(ByteOrder))
def test_page_numbers_are_whole_words_in_the_order_of_the_queue(data, order):
    pfns = decode(data, order)

    whole = [data[at : at + 4] for at in range(0, len(data) - 3, 4)]
    assert pfns == tuple(int.from_bytes(word, order.value) for word in whole)


@given(st.lists(U32, max_size=64), st.sampled_from(ByteOrder), st.binary(max_size=3))
def test_a_tail_is_no_page_number(pfns, order, tail):
    data = b"".join(pfn.to_bytes(4, order.value) for pfn in pfns)

    assert decode(data + tail, order) == tuple(pfns)


# --- reading a driver that is wrong -------------------------------------------------


@given(st.lists(U32, max_size=64))
def test_nothing_is_translated_unless_said_so(pfns):
    assert tuple(core.translate(pfns, Translation())) == tuple(pfns)


@given(st.lists(U32, max_size=64))
def test_page_numbers_in_the_other_byte_order_are_swapped(pfns):
    wrong = decode(b"".join(pfn.to_bytes(4, "big") for pfn in pfns), ByteOrder.LITTLE)

    assert list(core.translate(wrong, Translation(swap_pfns=True))) == pfns


@given(st.lists(U32, max_size=64), st.integers(2, 4))
def test_only_the_first_entry_of_a_slot_counts(pfns, entries):
    slots = [entry for pfn in pfns for entry in [pfn, *[0xBAD] * (entries - 1)]]

    assert list(core.translate(slots, Translation(slot_entries=entries))) == pfns


def test_slots_are_taken_apart_before_they_are_swapped():
    slots = [0x0100_0000, 0xBAD, 0x0200_0000, 0xBAD]

    meant = core.translate(slots, Translation(swap_pfns=True, slot_entries=2))

    assert list(meant) == [1, 2]


@given(U32, st.integers(1, 64))
def test_actual_is_read_as_the_driver_means_it(pages, size):
    swapped = int.from_bytes(pages.to_bytes(4, "little"), "big")

    assert core.translate_actual(pages, Translation()) == pages
    assert core.translate_actual(swapped, Translation(swap_actual=True)) == pages
    assert (
        core.translate_actual(pages, Translation(pages_per_unit=size)) == pages * size
    )


# --- the bound ----------------------------------------------------------------------


def test_no_real_driver_reaches_the_bound():
    windows, macos_segment = 512 * 8, 16 * 1024

    assert 4 * max(windows, macos_segment) <= core.MAX_BUFFER_BYTES
    assert core.MAX_BUFFER_BYTES % 8 == 0
