"""Drivers that mean harm: honest until they are believed, and consistent after that."""

from __future__ import annotations

from scripted import ScriptedDevice, boot, words

from balloon_plugin.events import ByteOrder
from balloon_plugin.guests.lies import HONEST, LIED_ABOUT, Liar
from balloon_plugin.guests.ram import Ram
from balloon_plugin.guests.traits import Lie

FIRST, PAGES = 0x100, 4096
FRAMES = list(range(FIRST + 1024, FIRST + 3072))


def liar(lie):
    ram = Ram(FIRST * 4096, memoryview(bytearray(PAGES * 4096)))
    return Liar(lie, ram)


def test_the_first_batch_is_the_truth():
    for lie in (Lie.PLAIN, Lie.PERFECT):
        assert liar(lie).numbers(FRAMES[:HONEST]) == FRAMES[:HONEST]


def test_a_plain_lie_shows():
    said = liar(Lie.PLAIN).numbers(FRAMES[: HONEST + 9])[HONEST:]

    twice = [pfn for pfn in said if said.count(pfn) > 1]
    outside = [pfn for pfn in said if not FIRST <= pfn < FIRST + PAGES]
    assert twice
    assert outside
    assert set(said).isdisjoint(FRAMES)


def test_a_perfect_lie_does_not():
    said = liar(Lie.PERFECT).numbers(FRAMES[: HONEST + 300])

    assert len(set(said)) == len(said)
    assert all(FIRST <= pfn < FIRST + PAGES for pfn in said)
    assert said[HONEST:] == list(range(FIRST, FIRST + 300))


def test_what_was_once_said_is_said_again():
    for lie in (Lie.PLAIN, Lie.PERFECT):
        one = liar(lie)
        said = one.numbers(FRAMES[:400])

        assert one.numbers(FRAMES[:400][::-1]) == said[::-1]


def test_lies_come_to_an_end():
    said = liar(Lie.PERFECT).numbers(FRAMES[: HONEST + LIED_ABOUT + 100])

    assert said[HONEST + LIED_ABOUT :] == FRAMES[HONEST + LIED_ABOUT :][:100]


def test_whoever_believes_it_takes_pages_that_are_in_use():
    device = ScriptedDevice(256, 512, discards=True)
    running, _ = boot("perfect-liar-be-4k", device)
    running.run()

    first, second = (words(data, ByteOrder.BIG) for data in device.buffers("I"))
    assert min(first) >= 1024
    assert second == list(range(256))
    assert running.lost_pages == 256
