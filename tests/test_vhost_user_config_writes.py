from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.hosts.vhost_user.config_writes import PATIENCE, ConfigWrites

u32 = st.integers(0, 2**32 - 1)


class FrontEnd:
    """QEMU's generic device: a copy of the space, sent whole on each access."""

    def __init__(self, device):
        self.copy = bytearray(16)
        self.device = device
        self.writes = ConfigWrites()
        self.now = 50.0
        self.modern = False

    def read(self):
        reply = self.device.space()
        self.copy[:] = reply
        self.writes.seen(0, reply)

    def write(self, offset, data):
        self.copy[offset : offset + len(data)] = data
        accesses = self.writes.accesses(
            0, bytes(self.copy), modern=self.modern, now=self.now
        )
        return self.device.take(accesses)

    def wait(self, seconds):
        self.now += seconds
        return self.device.take(self.writes.settle(self.now))


class Device:
    """Commits a field when its last byte is written, and shows what is committed."""

    def __init__(self):
        self.num_pages = 0x1234_5678
        self.written = bytearray(16)
        self.fields = {4: 0, 12: 0}
        self.commits = []

    def take(self, accesses):
        for offset, data in accesses:
            self.written[offset : offset + len(data)] = data
            for field in self.fields:
                if offset < field + 4 <= offset + len(data):
                    value = int.from_bytes(self.written[field : field + 4], "little")
                    self.fields[field] = value
                    self.commits.append((field, value))
        return accesses

    def space(self):
        return struct.pack("<IIII", self.num_pages, self.fields[4], 0, self.fields[12])


@pytest.fixture
def front_end():
    return FrontEnd(Device())


def bytewise(field, value):
    return [
        (field + at, bytes([byte])) for at, byte in enumerate(struct.pack("<I", value))
    ]


# --- legacy, byte by byte -----------------------------------------------------------


@given(st.lists(u32), st.lists(st.booleans(), max_size=200))
def test_bytewise_writes_come_back_as_the_guest_made_them(values, reads):
    front_end = FrontEnd(Device())
    reads = iter(reads)

    for value in values:
        for access in bytewise(4, value):
            if next(reads, False):
                front_end.read()
            assert front_end.write(*access) == [access]

    assert front_end.device.commits == [(4, value) for value in values]


@pytest.mark.parametrize(
    ("before", "after", "messages"),
    [
        (0, 256, [0, 256, 256, 256]),
        (255, 256, [0, 256, 256, 256]),
        (0, 16, [16, 16, 16, 16]),
        (7, 7, [7, 7, 7, 7]),
    ],
)
def test_torn_values_are_never_believed(before, after, messages):
    front_end = FrontEnd(Device())
    for value in [before, after]:
        seen = []
        for access in bytewise(4, value):
            front_end.write(*access)
            seen.append(struct.unpack_from("<I", front_end.copy, 4)[0])

    assert seen == messages
    assert front_end.device.commits == [(4, before), (4, after)]


@given(st.lists(st.tuples(st.sampled_from([4, 12]), u32), max_size=20))
def test_no_torn_value_of_either_field_is_ever_committed(written):
    front_end = FrontEnd(Device())
    for field, value in written:
        for access in bytewise(field, value):
            front_end.write(*access)

    # A poison value that changes nothing is taken for an actual that does not.
    assert len(front_end.device.commits) == len(written)
    for field in (4, 12):
        meant = [0] + [value for at, value in written if at == field]
        committed = {value for at, value in front_end.device.commits if at == field}
        assert committed <= set(meant)
        assert front_end.device.fields[field] == meant[-1]


def test_poison_is_known_by_the_bytes_that_change(front_end):
    accesses = [front_end.write(*access) for access in bytewise(12, 0xAA00BB00)]

    # The first byte is as it was, and then it is taken for one of ``actual``: harmless,
    # since it is not the last one.
    assert accesses == [
        [(4, b"\x00")],
        [(13, b"\xbb")],
        [(14, b"\x00")],
        [(15, b"\xaa")],
    ]
    assert front_end.device.commits == [(12, 0xAA00BB00)]


def test_num_pages_is_never_passed_on(front_end):
    front_end.read()
    for access in bytewise(4, 0x01020304):
        ((offset, data),) = front_end.write(*access)
        assert offset >= 4
        assert len(data) == 1


# --- legacy, four bytes at once -----------------------------------------------------


@given(st.lists(u32))
def test_a_driver_that_writes_whole_fields_is_found_out(values):
    front_end = FrontEnd(Device())

    for value in values:
        front_end.write(4, struct.pack("<I", value))
        front_end.wait(PATIENCE)

    assert front_end.device.commits == [(4, value) for value in values]


def test_a_field_whose_bytes_do_not_come_is_whole_after_a_while(front_end):
    assert front_end.writes.deadline is None
    assert front_end.write(4, struct.pack("<I", 16)) == [(4, b"\x10")]
    assert front_end.writes.deadline == pytest.approx(50.0 + PATIENCE)

    assert front_end.wait(PATIENCE * 0.6) == []
    assert front_end.wait(PATIENCE * 0.6) == [(4, b"\x10\0\0\0")]

    assert front_end.writes.deadline is None
    assert front_end.wait(10) == []


def test_a_change_elsewhere_is_a_whole_field_at_once(front_end):
    assert front_end.write(4, struct.pack("<I", 0x100)) == [(4, b"\0\1\0\0")]
    assert front_end.write(4, struct.pack("<I", 0x10001)) == [(4, b"\1\0\1\0")]
    assert front_end.writes.deadline is None


def test_a_second_whole_write_in_a_hurry_is_found_out_too(front_end):
    assert front_end.write(4, struct.pack("<I", 16)) == [(4, b"\x10")]
    assert front_end.write(4, struct.pack("<I", 32)) == [(4, b"\x20\0\0\0")]
    assert front_end.writes.deadline is None


def test_both_fields_at_once_are_no_single_access(front_end):
    front_end.write(4, b"\6")
    front_end.copy[12] = 9

    assert front_end.write(4, b"\7") == [(4, b"\7\0\0\0"), (12, b"\x09\0\0\0")]
    assert front_end.writes.deadline is None


def test_what_is_between_the_fields_does_not_count(front_end):
    front_end.copy[8] = 9

    assert front_end.write(4, b"\7") == [(4, b"\7")]


def test_replies_may_be_of_any_part_and_reach_beyond_the_space(front_end):
    front_end.copy[4:8] = b"abcd"
    front_end.writes.seen(4, b"abcd")
    front_end.writes.seen(14, bytes(6))
    front_end.writes.seen(20, bytes(6))

    assert front_end.write(4, b"A") == [(4, b"A")]
    assert len(front_end.writes._copy) == 16


# --- modern -------------------------------------------------------------------------


@given(st.lists(u32))
def test_modern_drivers_write_whole_fields(values):
    front_end = FrontEnd(Device())
    front_end.modern = True

    for value in values:
        data = struct.pack("<I", value)
        assert front_end.write(4, data) == [(4, data)]

    assert front_end.writes.deadline is None


def test_modern_poison_is_no_write_of_actual(front_end):
    front_end.modern = True

    assert front_end.write(12, b"\xaa" * 4) == [(12, b"\xaa" * 4)]
    assert front_end.write(12, b"\xaa" * 4) == [(4, bytes(4))]  # it cannot be told


# --- other accesses, and drivers that go --------------------------------------------


@pytest.mark.parametrize(
    ("offset", "data", "expected"),
    [
        (4, b"abcd", [(4, b"abcd")]),
        (6, b"cd", [(6, b"cd")]),
        (12, b"pppp", [(12, b"pppp")]),
        (0, b"nnnn", []),
        (2, b"nnab", [(4, b"ab")]),
        (0, b"nnnnabc", [(4, b"abc")]),
        (300, b"x", [(300, b"x")]),
        (0, b"", []),
    ],
)
def test_an_access_that_is_no_whole_space_is_the_guests_own(offset, data, expected):
    writes = ConfigWrites()

    assert writes.accesses(offset, data, modern=False, now=0.0) == expected


def test_a_space_may_have_just_two_fields():
    writes = ConfigWrites()

    assert writes.accesses(0, b"nnnn\1\0\0\0", modern=False, now=0.0) == [(4, b"\1")]


def test_a_driver_that_goes_leaves_nothing_behind(front_end):
    front_end.write(4, b"\7")

    front_end.writes.forget()

    assert front_end.writes.deadline is None
    front_end.read()
    assert front_end.write(4, b"\7") == [(4, b"\7")]


def test_a_guest_that_stood_still_gets_more_time(front_end):
    front_end.write(4, b"\7")

    front_end.writes.postpone(90.0)

    assert front_end.writes.deadline == pytest.approx(90.0 + PATIENCE)
