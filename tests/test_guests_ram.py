"""Words and marks in guest RAM."""

from __future__ import annotations

import pytest

from balloon_plugin.events import ByteOrder
from balloon_plugin.guests.ram import Ram

PAGE = 4096
BASE = 0x4000_0000
FIRST = BASE // PAGE


@pytest.fixture
def memory():
    return bytearray(16 * PAGE)


@pytest.fixture
def ram(memory):
    return Ram(BASE, memoryview(memory))


def test_it_knows_its_pages(ram):
    assert (ram.start, ram.first_page, ram.pages) == (BASE, FIRST, 16)


def test_bytes_are_where_the_guest_believes_them(memory, ram):
    ram.write(BASE + 5, b"abc")

    assert memory[5:8] == b"abc"
    assert ram.read(BASE + 4, 5) == b"\0abc\0"


@pytest.mark.parametrize(
    ("order", "raw"), [(ByteOrder.LITTLE, b"\x34\x12"), (ByteOrder.BIG, b"\x12\x34")]
)
def test_words_have_the_guests_byte_order(memory, ram, order, raw):
    ram.store16(BASE + 6, 0x1234, order)

    assert memory[6:8] == raw
    assert ram.load16(BASE + 6, order) == 0x1234


def test_marked_pages_are_whole(ram):
    ram.mark(FIRST + 2, 5)

    assert ram.unmarked(FIRST + 2, 5) == []
    assert ram.unmarked(FIRST, 8) == [FIRST, FIRST + 1, FIRST + 7]


def test_a_page_that_was_emptied_is_noticed(memory, ram):
    ram.mark(FIRST, 16)
    memory[3 * PAGE : 5 * PAGE] = bytes(2 * PAGE)

    assert ram.unmarked(FIRST, 16) == [FIRST + 3, FIRST + 4]


def test_a_page_with_the_mark_of_another_is_noticed(memory, ram):
    ram.mark(FIRST, 16)
    memory[:PAGE] = memory[PAGE : 2 * PAGE]

    assert ram.unmarked(FIRST, 16) == [FIRST]


@pytest.mark.parametrize(
    ("at", "size", "covered"),
    [
        (0, 4088, []),
        (0, 4089, [0]),
        (4095, 1, [0]),
        (4096, 4088, []),
        (4000, 8192, [0, 1]),
        (100, 0, []),
    ],
)
def test_what_the_guest_overwrites_itself_is_no_loss(ram, at, size, covered):
    ram.mark(FIRST, 16)
    ram.write(BASE + at, b"x" * size)
    changed = [
        page for page in range(16) if b"x" in ram.read(BASE + page * PAGE + 4088, 8)
    ]

    assert changed == covered
    assert ram.unmarked(FIRST, 16) == []


def test_a_new_mark_is_watched_again(memory, ram):
    ram.mark(FIRST)
    ram.write(BASE, bytes(PAGE))
    ram.mark(FIRST)
    memory[:PAGE] = bytes(PAGE)

    assert ram.unmarked(FIRST) == [FIRST]
