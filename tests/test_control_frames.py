"""Bytes into messages."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.control.frames import Frames


@pytest.mark.parametrize(
    ("sent", "messages"),
    [
        (b'{"a": 1}{"b": 2}', [b'{"a": 1}', b'{"b": 2}']),
        (b'{"a": 1}\r\n{"b": 2}\n', [b'{"a": 1}', b"\r\n", b'{"b": 2}', b"\n"]),
        (b'{"a":\n [{}, {"b": []}]\n}', [b'{"a":\n [{}, {"b": []}]\n}']),
        (rb'{"}": "\"}\\"}{', [rb'{"}": "\"}\\"}']),
        (b"balloon 1\n[]", [b"balloon 1\n", b"[]"]),
        (b"}]{}", [b"}", b"]", b"{}"]),
        (b'{"open\n{}', [b'{"open\n', b"{}"]),
        (b'{"open\\\n{}', [b'{"open\\\n', b"{}"]),
        (b'{"a": 1', []),
        (b"1 2 3", []),
    ],
)
def test_messages_are_cut_by_their_brackets(sent, messages):
    assert list(Frames().feed(sent)) == messages


@given(st.binary(), st.integers(0, 20))
def test_nothing_is_lost_wherever_it_is_cut(sent, size):
    frames, cut = Frames(), Frames()
    whole = [*frames.feed(sent), frames.take()]

    parts = [*cut.feed(sent[:size]), *cut.feed(sent[size:]), cut.take()]

    assert parts == whole
    assert b"".join(whole) == sent
    assert len(frames) == 0


TEXT = st.text('a"\\\n{}[]', max_size=6)
OBJECTS = st.recursive(
    st.dictionaries(TEXT, st.none() | TEXT, max_size=2),
    lambda inner: st.dictionaries(TEXT, inner | st.lists(inner), max_size=2),
    max_leaves=3,
)


@given(st.lists(OBJECTS, max_size=3))
def test_objects_are_cut_apart_without_anything_between(values):
    sent = "".join(json.dumps(value) for value in values).encode()

    assert [json.loads(part) for part in Frames().feed(sent)] == values
