"""Page numbers as drivers send them."""

from __future__ import annotations

import pytest

from balloon_plugin.events import ByteOrder
from balloon_plugin.guests.traits import PfnForm
from balloon_plugin.guests.wire import encode, pack, reach

K4, K16, K64 = 4 << 10, 16 << 10, 64 << 10
RIGHT, SHIFTED, BARE = PfnForm.RIGHT, PfnForm.WRONG_SHIFT, PfnForm.UNSHIFTED


@pytest.mark.parametrize(
    ("form", "size", "numbers"),
    [
        (RIGHT, K4, [7, 0x405]),
        (RIGHT, K16, [28, 29, 30, 31, *range(0x1014, 0x1018)]),
        (RIGHT, K64, [*range(0x70, 0x80), *range(0x4050, 0x4060)]),
        # As measured: page frame 0x295 of 64 KiB was sent as 0x29.
        (SHIFTED, K64, [0, 0x40]),
        (SHIFTED, K16, [1, 0x101]),
        (SHIFTED, K4, [7, 0x405]),
        (BARE, K64, [7, 0x405]),
        (BARE, K4, [7, 0x405]),
    ],
)
def test_frames_become_numbers(form, size, numbers):
    assert encode([7, 0x405], form, size) == numbers


@pytest.mark.parametrize(
    ("size", "order", "data"),
    [
        (4, ByteOrder.LITTLE, "01020000 05000000"),
        (4, ByteOrder.BIG, "00000201 00000005"),
        (8, ByteOrder.LITTLE, "0102000000000000 0500000000000000"),
        (8, ByteOrder.BIG, "0000000000000201 0000000000000005"),
    ],
)
def test_numbers_become_bytes(size, order, data):
    assert pack([0x201, 5], size, order) == bytes.fromhex(data)


@pytest.mark.parametrize(
    ("form", "size", "most"),
    [(RIGHT, K64, 1), (SHIFTED, K64, 64), (SHIFTED, K4, 1), (BARE, K64, 1024)],
)
def test_how_far_wrong_numbers_reach(form, size, most):
    assert reach(64 << 20, form, size) == most
