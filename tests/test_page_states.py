"""The saved form of chunks, against a digit for each page."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.page_states import CHUNK, members, pack, unpack

BLOCK = 512
LAST = str(CHUNK // BLOCK - 1)
MIXED = "01" * (BLOCK // 2)

# Few runs, whose ends are at the ends of blocks or beside them.
ends = st.builds(
    int.__add__,
    st.integers(0, CHUNK // BLOCK - 1).map(BLOCK.__mul__),
    st.integers(0, 2),
)
chunks = st.lists(st.tuples(ends, ends, st.integers(0, 2)), max_size=6).map(
    lambda parts: painted(*parts)
)


def painted(*parts):
    """Return a chunk with the states from one page to before another."""
    chunk = bytearray(CHUNK)
    for start, end, state in parts:
        chunk[start:end] = bytes([state]) * (end - start)
    return chunk


@given(chunks)
def test_what_is_saved_is_read_again(chunk):
    before = bytes(chunk)

    form = json.loads(json.dumps(pack(chunk)))

    assert unpack(form) == before
    assert pack(unpack(form)) == form
    assert chunk == before


@pytest.mark.parametrize(
    ("parts", "form"),
    [
        ([], {}),
        ([(0, BLOCK, 1)], {"0": "1"}),
        ([(CHUNK - BLOCK, CHUNK, 2)], {LAST: "2"}),
        ([(BLOCK, BLOCK + 3, 1)], {"1": "111" + "0" * (BLOCK - 3)}),
        ([(0, BLOCK, 1), (1, 2, 2)], {"0": "12" + "1" * (BLOCK - 2)}),
    ],
)
def test_a_block_is_one_digit_or_one_for_each_page(parts, form):
    assert pack(painted(*parts)) == form


def test_a_whole_chunk_is_short():
    assert len(json.dumps(pack(painted((0, CHUNK, 2))))) < 1000


@pytest.mark.parametrize(
    ("form", "wrong"),
    [
        (None, "no object"),
        ([], "no object"),
        ({"": "1"}, "'' is no number"),
        ({"00": "1"}, "'00' is no number"),
        ({"-1": "1"}, "'-1' is no number"),
        ({"1\n": "1"}, r"'1\\n' is no number"),
        ({"1\u0663": "1"}, "is no number"),
        ({"9" * 5000: "1"}, "is no number"),
        ({0: "1"}, "0 is no number"),
        ({str(CHUNK // BLOCK): "1"}, "there is no block 64"),
        ({"0": "3"}, "neither one digit nor 512"),
        ({"0": ""}, "neither one digit nor 512"),
        ({"0": 1}, "neither one digit nor 512"),
        ({"0": None}, "neither one digit nor 512"),
        ({"0": [MIXED]}, "neither one digit nor 512"),
        ({"0": MIXED + "0"}, "neither one digit nor 512"),
        ({"0": MIXED[:-1]}, "neither one digit nor 512"),
        ({"0": MIXED[:-1] + "3"}, "neither one digit nor 512"),
        ({"0": MIXED[:-1] + "\n"}, "neither one digit nor 512"),
        ({"0": MIXED[:-1] + "\u0661"}, "neither one digit nor 512"),
    ],
)
def test_a_damaged_chunk_is_refused(form, wrong):
    with pytest.raises(ValueError, match=wrong) as error:
        unpack(form)

    assert len(str(error.value)) < 100


def test_members_have_numbers():
    assert list(members({"0": "1", "123456789": {}})) == [(0, "1"), (123456789, {})]
