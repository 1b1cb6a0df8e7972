"""The widths of configuration accesses."""

from __future__ import annotations

import pytest

from balloon_plugin.guests.access import Access, ConfigSpace


class Bus:
    """Configuration space that notes each access."""

    def __init__(self):
        self.space = bytearray(range(0x10, 0x20))
        self.log = []

    def config_read(self, offset, size):
        self.log.append((offset, size))
        return bytes(self.space[offset : offset + size])

    def config_write(self, offset, data):
        self.log.append((offset, data))
        self.space[offset : offset + len(data)] = data


def run(steps):
    """Run a generator to its end; return its steps and its result."""
    count = 0
    while True:
        try:
            assert next(steps)
            count += 1
        except StopIteration as end:
            return count, end.value


@pytest.mark.parametrize(
    ("access", "spans"),
    [
        (Access.BYTEWISE, [(0, 1), (1, 1), (2, 1), (3, 1)]),
        (Access.WORD, [(0, 4)]),
        (Access.CHANNEL, [(0, 4)]),
        (Access.WHOLE, [(0, 16)]),
    ],
)
def test_reading_the_target(access, spans):
    bus = Bus()
    steps, data = run(ConfigSpace(bus, access).read("num_pages"))

    assert bus.log == spans
    assert steps == len(spans)
    assert data == bytes([0x10, 0x11, 0x12, 0x13])


@pytest.mark.parametrize("access", Access)
def test_a_field_in_the_middle_is_found_in_every_width(access):
    _, data = run(ConfigSpace(Bus(), access).read("actual"))

    assert data == bytes([0x14, 0x15, 0x16, 0x17])


@pytest.mark.parametrize(
    ("access", "writes"),
    [
        (Access.BYTEWISE, [(4, b"a"), (5, b"b"), (6, b"c"), (7, b"d")]),
        (Access.WORD, [(4, b"abcd")]),
        (Access.CHANNEL, [(0, b"\x10\x11\x12\x13abcd")]),
        (Access.WHOLE, [(0, b"\x10\x11\x12\x13abcd" + bytes(range(0x18, 0x20)))]),
    ],
)
def test_writing_actual(access, writes):
    bus = Bus()
    config = ConfigSpace(bus, access)
    run(config.read("num_pages"))
    bus.space[0] = 0xFF
    bus.log.clear()
    steps, _ = run(config.write("actual", b"abcd"))

    # What is written besides the field is what was read before, and may be stale.
    assert bus.log == writes
    assert steps == len(writes)
