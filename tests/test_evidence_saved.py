"""A session of the evidence policy is saved, and loaded elsewhere."""

from __future__ import annotations

import json

import pytest
from evidence_model import swap
from evidence_sessions import FACTS, HIGH, begun, only_4k, pages, stale

from balloon_plugin.events import GuestFacts
from balloon_plugin.policies.evidence import saved
from balloon_plugin.policies.evidence.session import MAX_EVIDENCE, MAX_READS, WHOLE


def copied(session, facts=FACTS):
    return saved.load(facts, json.loads(json.dumps(saved.save(session))))


def test_a_session_survives_json():
    session = begun(33, 1000)
    session.inflate(pages(33))
    session.write(swap(33))
    session.inflate(pages(1, HIGH + 50))

    assert copied(session) == session
    session.inflate((1, 1))
    assert session.last is not None
    assert copied(session) == session
    session, _ = stale()
    session.place(0, 0x31000)
    assert copied(session) == session


def test_a_page_that_is_just_being_moved_is_remembered():
    session = only_4k(33)
    session.inflate(pages(33))
    session.inflate(pages(1, HIGH + 50))
    loaded = copied(session, session.facts)
    assert loaded.lent == session.alive

    loaded.inflate(pages(1, HIGH + 51))

    assert not loaded.alive


def test_kinds_that_the_new_host_rules_out_are_not_loaded():
    session = begun(33)

    loaded = copied(session, GuestFacts(FACTS.ram, page_size=65536))

    assert {kind.page for kind in loaded.alive} == {16}


GOOD_STATE = saved.save(begun(33))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("features", value) for value in ("1", -1, 1 << 64, True)),
        *(("alive", value) for value in (None, 5, ["x"], [["x"]], [[[], 1]], [5])),
        *(("last", value) for value in (None, 5, ["xyz"])),
        *(("lent", value) for value in (None, 5, ["xyz"])),
        *(("entries", value) for value in (None, "1", -1, 1 << 32, True, 1.5)),
        *(("actual", value) for value in ("1", -1, 1 << 32, True)),
        *(("places", value) for value in ("1", -1, 1 << 64, True)),
        *(("count", value) for value in ("1", -1, 257, True)),
        *(("buffer", value) for value in (None, 5, ["x"], [-1], [1 << 32])),
        *(("reads", value) for value in (None, 5, [5], [[1]], [[-1, 0]], [[1, "x"]])),
        *(("taken", value) for value in (None, 5, ["x"], [-1], [None])),
        *(("evidence", value) for value in (None, 5, [5], ["x"], [["x"]])),
    ],
)
def test_damage_is_refused(key, value):
    with pytest.raises(ValueError, match=r"saved evidence|unpack"):
        saved.load(FACTS, GOOD_STATE | {key: value})


@pytest.mark.parametrize("key", GOOD_STATE)
def test_a_missing_part_is_refused(key):
    state = {name: value for name, value in GOOD_STATE.items() if name != key}

    with pytest.raises(ValueError, match=f"not a saved evidence session.*{key}"):
        saved.load(FACTS, state)


@pytest.mark.parametrize("state", [None, 5, "x", []])
def test_what_is_no_state_at_all_is_refused(state):
    with pytest.raises(ValueError, match="not a saved evidence session"):
        saved.load(FACTS, state)


def test_too_much_is_cut():
    state = GOOD_STATE | {
        "buffer": [5] * 1000,
        "reads": [[value, 0] for value in range(100)],
        "evidence": [["a", "b"]] * 100,
    }

    loaded = saved.load(FACTS, state)

    assert loaded.buffer == (5,) * WHOLE
    assert list(loaded.reads) == list(range(100))[-MAX_READS:]
    assert len(loaded.evidence) == MAX_EVIDENCE
