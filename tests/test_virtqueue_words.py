"""Words that two processors share."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import textwrap

import pytest

from balloon_plugin.events import ByteOrder
from balloon_plugin.virtqueue.words import Words, make_fence


@pytest.fixture
def memory():
    return bytearray(16)


def test_words_are_in_the_order_of_the_ring(memory):
    Words(memoryview(memory), ByteOrder.BIG).store(1, 0x1234)
    Words(memoryview(memory), ByteOrder.LITTLE).store(2, 0x1234)

    assert memory[2:6] == b"\x12\x34\x34\x12"


@pytest.mark.parametrize("order", ByteOrder)
def test_what_was_stored_is_loaded(memory, order):
    words = Words(memoryview(memory), order)
    for place in range(8):
        words.store(place, 0x100 * place + 0x8001)

    assert [words.load(place) for place in range(8)] == words.run(0, 8)
    assert words.run(1, 3) == [0x8101, 0x8201, 0x8301]
    assert words.run(1, 3, 3) == [0x8101, 0x8401, 0x8701]
    assert words.run(4, 0) == []


def test_a_released_ring_can_go(memory):
    words = Words(memoryview(memory), ByteOrder.LITTLE)
    words.release()
    memory.clear()

    assert not memory


def test_a_fence_can_be_called_again_and_again():
    fence = make_fence()

    assert [fence() for _ in range(3)] == [None] * 3


@pytest.mark.slow
def test_words_are_stored_whole():
    """Another process never sees half of a word; ``struct.pack_into`` fails here."""
    program = """
        import mmap, sys
        from balloon_plugin.events import ByteOrder
        from balloon_plugin.virtqueue.words import Words

        shared = mmap.mmap(int(sys.argv[1]), 4096)
        words = Words(memoryview(shared), ByteOrder(sys.argv[2]))
        while not shared[100]:
            for word in (0x0101, 0xFEFE) * 500:
                words.store(0, word)
    """
    for order in ByteOrder:
        assert seen_by_another(textwrap.dedent(program), order) <= {0x0101, 0xFEFE}


def seen_by_another(program, order):
    """Return what values a word has while a process stores two."""
    fd = os.memfd_create("words")
    os.ftruncate(fd, 4096)
    shared = mmap.mmap(fd, 4096)
    words = memoryview(shared).cast("H")
    words[0] = 0x0101
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", program, str(fd), order.value], pass_fds=[fd]
    ) as process:
        seen = set()
        while len(seen) < 2:
            seen.add(words[0])
        for _ in range(200_000):
            seen.add(words[0])
        shared[100] = 1
    assert process.returncode == 0
    return seen
