from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder
from balloon_plugin.hosts.vhost_user.parked import Parked, pack, unpack
from balloon_plugin.virtqueue import Ring

U64 = st.integers(0, 2**64 - 1)
PLACES = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32768))
SESSIONS = st.builds(
    Parked,
    boot=st.text(max_size=4),
    files=st.frozensets(st.tuples(U64, U64), max_size=3),
    features=U64,
    ready=st.booleans(),
    queues=st.dictionaries(st.integers(0, 1), PLACES),
    device=st.just({"version": 1}),
)

PARKED = Parked(
    boot="today",
    files=frozenset({(1, 2), (1, 3)}),
    features=1 << 32,
    ready=True,
    queues={0: (65534, 4), 1: (7, 0)},
    device={"version": 1},
)

LARGEST = replace(
    PARKED,
    files=frozenset({(2**64 - 1, 2**64 - 1)}),
    features=2**64 - 1,
    queues={0: (2**32 - 1, 32768)},
)


@given(st.integers(0, 2**32 - 1), st.none() | SESSIONS)
@example(2**32 - 1, None)
@example(2**32 - 1, LARGEST)
def test_what_is_saved_comes_back(target, session):
    saved = json.loads(json.dumps(pack(target, session)))

    assert unpack(saved) == (target, session)


@pytest.mark.parametrize(
    ("boot", "files", "same"),
    [
        ("today", {(1, 2), (1, 3)}, True),
        ("today", {(1, 3), (5, 5)}, True),
        ("today", {(1, 4)}, False),
        ("today", set(), False),
        ("yesterday", {(1, 2), (1, 3)}, False),
    ],
)
def test_a_guest_is_known_by_its_memory(boot, files, same):
    assert PARKED.is_of(boot, frozenset(files)) is same


SPLIT = Ring(128, 0, 0, 0, features=0, native=ByteOrder.LITTLE)


@pytest.mark.parametrize(
    ("queue", "base", "owed"),
    [
        (0, 65534, 4),
        (0, 2, 0),
        (0, 0, 2),
        (0, 3, None),
        (0, 65533, None),
        (1, 7, 0),
        (1, 8, None),
        (2, 99, 0),
    ],
)
def test_what_is_owed_follows_from_where_a_queue_starts(queue, base, owed):
    assert PARKED.owed(queue, base, SPLIT) == owed


@pytest.mark.parametrize(
    ("place", "wrap", "owed"),
    [(98, 1, 4), (99, 1, 3), (0, 0, 2), (2, 0, 0), (2, 1, None), (97, 1, None)],
)
def test_a_packed_queue_is_counted_in_laps(place, wrap, owed):
    ring = replace(SPLIT, size=100, features=1 << 34)
    session = replace(PARKED, queues={0: (0x80628062, 4)})

    assert session.owed(0, (place | wrap << 15) * 0x10001, ring) == owed


def test_a_queue_of_which_nothing_is_known_may_stand_still():
    assert PARKED.owed(1, 7, None) == 0
    assert PARKED.owed(0, 2, None) is None


def test_a_newer_form_is_refused_with_a_sentence():
    with pytest.raises(HostError, match="has version 2, this is version 1: serve it"):
        unpack(pack(0, PARKED) | {"version": 2})


SAVED = pack(5, PARKED)
DAMAGE = [
    {"version": None},
    {"version": 0},
    {"target": -1},
    {"target": 2**32},
    {"target": 2**32, "session": None},
    {"target": True},
    {"target": "5"},
    {"session": []},
    {"session": {}},
    *(
        {"session": SAVED["session"] | damage}
        for damage in [
            {"boot": 1},
            {"ready": 1},
            {"device": None},
            {"files": None},
            {"files": [1]},
            {"files": [[1]]},
            {"files": [[1, -1]]},
            {"features": 1 << 64},
            {"features": None},
            {"queues": None},
            {"queues": []},
            {"queues": {"0": 1}},
            {"queues": {"0": [1]}},
            {"queues": {"x": [1, 1]}},
            {"queues": {"0": [1 << 32, 0]}},
            {"queues": {"0": [0, 32769]}},
        ]
    ),
]


@pytest.mark.parametrize("damage", DAMAGE, ids=str)
def test_damage_is_refused_with_a_sentence(damage):
    with pytest.raises(HostError, match="the saved session is damaged: remove it"):
        unpack(SAVED | damage)


def test_what_is_missing_is_damage_too():
    for name in ("version", "target", "session"):
        with pytest.raises(HostError, match="is damaged"):
            unpack({key: value for key, value in SAVED.items() if key != name})


def test_sessions_differ_by_what_they_are():
    assert replace(PARKED, ready=False) != PARKED
