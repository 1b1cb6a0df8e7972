"""The policy ``evidence`` from outside: options, snapshots, and hostile guests."""

from __future__ import annotations

import json
from functools import partial

import pytest
from evidence_model import (
    BIG,
    REPORTING,
    VERSION_1,
    swap,
)
from evidence_script import (
    BUGGY,
    FILLED,
    GIB,
    GOOD,
    HIGH,
    RAM,
    SHIFTED,
    SHRUNK,
    UNDECIDED,
    after,
    copied,
    observe,
    pages,
    seen,
)

from balloon_plugin.errors import PluginError
from balloon_plugin.events import (
    ActualWritten,
    DeviceReset,
    DriverReady,
    Evidence,
    FeaturesAcked,
    GuestDescribed,
    GuestFacts,
    MemoryRange,
    PagesDeflated,
    PagesInflated,
    TargetRead,
    TimePassed,
)
from balloon_plugin.policies.evidence import EvidencePolicy, numbers, session
from balloon_plugin.testing import check_policy

# --- the bit by which a driver says that it is right --------------------------------


def test_no_bit_is_offered_by_default():
    assert EvidencePolicy().policy_features() == 0
    assert seen(after(features=1 << 22))[1] == "FILL"


@pytest.mark.parametrize("bit", [6, 22, "23"])
def test_a_bit_can_be_offered_and_is_a_proof(bit):
    policy = after(features=None, endian_safe=bit)
    assert policy.policy_features() == 1 << int(bit)

    observe(policy, FeaturesAcked(1 << int(bit)))

    assert seen(policy, 5) == (GOOD, "GOOD", 5)
    assert policy.policy_verdict().evidence[-1] == Evidence(
        "VIRTIO_BALLOON_F_ENDIAN_SAFE accepted",
        "The driver says of itself that it reads its target right.",
    )


def test_a_driver_that_does_not_accept_it_is_tested():
    assert seen(after(endian_safe=22)) == (UNDECIDED, "FILL", 33)


@pytest.mark.parametrize(
    ("option", "value", "takes"),
    [
        ("patience", 0, "a whole number from 1 to 3600"),
        ("patience", 3601, "a whole number from 1 to 3600"),
        ("hold", "perhaps", "yes or no"),
        ("swap", 2, "yes or no"),
        ("translate", None, "yes or no"),
        ("align", "", "yes or no"),
        ("endian_safe", 5, "a whole number from 6 to 23"),
        ("endian_safe", 24, "a whole number from 6 to 23"),
        ("endian_safe", "yes", "a whole number from 6 to 23"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_in_a_sentence(option, value, takes):
    with pytest.raises(PluginError) as caught:
        EvidencePolicy(**{option: value})

    assert str(caught.value) == f"the option {option} takes {takes}, not {value!r}"


# --- sessions and snapshots ---------------------------------------------------------

STORIES = {
    "nothing": (),
    "fill": FILLED[:2],
    "shrink": FILLED,
    "good": (*FILLED, *SHRUNK),
    "held": (TargetRead(33), PagesInflated(SHIFTED)),
    "unknown": (
        *(TargetRead(33), PagesInflated((2**32 - 1,) * 100), TargetRead(100)),
        PagesInflated((2**32 - 1,) * 100),
    ),
    "silent": (TargetRead(33), TimePassed(0.0), TimePassed(5.0)),
    "silent in between": (*FILLED, TimePassed(0.0), TimePassed(5.0)),
    "mute": (*FILLED[:2], DriverReady(), TimePassed(0.0), TimePassed(5.0)),
    "stubborn": (*FILLED, TargetRead(1), TimePassed(0.0), TimePassed(5.0)),
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_a_reset_begins_anew(story):
    policy, fresh = after(*story), EvidencePolicy()
    observe(fresh, GuestDescribed(GuestFacts(RAM)))

    observe(policy, DeviceReset())

    assert policy.policy_gate(9) == fresh.policy_gate(9)
    assert policy.policy_verdict() == fresh.policy_verdict()
    assert policy.policy_save() == fresh.policy_save()


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_every_stage_survives_a_snapshot(story):
    policy = after(*story)
    loaded = copied(policy)

    assert loaded.policy_save() == policy.policy_save()
    for event in (
        *(TargetRead(33), *FILLED, *SHRUNK, TargetRead(500)),
        *(PagesInflated(pages(200, HIGH + 100)), ActualWritten(201), TimePassed(50.0)),
        *(TimePassed(51.0), TimePassed(60.0), GuestDescribed(GuestFacts(RAM, BIG))),
    ):
        assert seen(loaded, 500) == seen(policy, 500)
        assert loaded.policy_verdict() == policy.policy_verdict()
        observe(policy, event, requested=500)
        observe(loaded, event, requested=500)


def test_a_driver_that_the_new_host_knows_better_is_judged_by_it_at_once():
    policy = after(*FILLED, *SHRUNK)
    big = GuestFacts(RAM, page_size=65536)

    loaded = copied(policy, big)

    assert seen(loaded) == (BUGGY, "HELD", 1)
    assert not loaded.policy_gate(0).reclaim


GOOD_STATE = after(*FILLED).policy_save()


@pytest.mark.parametrize("key", GOOD_STATE)
def test_a_state_without_a_part_is_refused(key):
    state = {name: value for name, value in GOOD_STATE.items() if name != key}

    assert_refused(state, f"{key}")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("stage", "TESTING", "TESTING"),
        ("stage", None, "None"),
        ("slept", "TESTING", "TESTING"),
        ("goal", -1, "-1 is no target"),
        ("goal", 1 << 32, "4294967296 is no target"),
        ("goal", "33", "'33' is no target"),
        ("goal", True, "True is no target"),
        ("mute", ["LAZY"], "LAZY"),
        ("mute", 5, "not iterable"),
        ("mute", [[]], "unhashable"),
        ("session", {}, "features"),
        ("session", None, "saved evidence session"),
    ],
)
def test_a_damaged_state_is_refused(key, value, words):
    assert_refused(GOOD_STATE | {key: value}, words)


def test_what_is_no_state_is_refused():
    for state in (None, [], 5, "x"):
        assert_refused(state, "not a saved evidence policy")


def assert_refused(state, words):
    policy = after(*FILLED, *SHRUNK)
    before = policy.policy_save()

    with pytest.raises(ValueError, match=words):
        policy.policy_load(state)

    assert policy.policy_save() == before


@pytest.mark.parametrize(
    ("options", "seed"),
    [
        ({}, 0),
        (dict.fromkeys(("hold", "swap", "translate", "align"), "no"), 1),
        ({"endian_safe": "22", "patience": "1"}, 2),
    ],
)
def test_the_contract_is_kept_with_any_options(options, seed):
    check_policy(partial(EvidencePolicy, **options), seed)


# --- a hostile guest ----------------------------------------------------------------

MOST_ENTRIES = 16384
"""In one buffer: 64 KiB of them, the most that the device reads."""

HOSTILE = {
    "in a row": lambda turn: pages(MOST_ENTRIES, turn * MOST_ENTRIES),
    "backwards": lambda turn: pages(MOST_ENTRIES, turn * MOST_ENTRIES)[::-1],
    "apart": lambda turn: tuple(range(turn % 97, 97 * MOST_ENTRIES, 97)),
    "the same": lambda _: (7,) * MOST_ENTRIES,
    "slots": lambda turn: tuple(
        n for page in pages(MOST_ENTRIES // 2, turn << 13) for n in (page, 0)
    ),
    "swapped": lambda turn: tuple(map(swap, pages(MOST_ENTRIES, turn << 14))),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("features", [None, 0, VERSION_1, REPORTING])
def test_a_hostile_guest_costs_bounded_work_and_memory(make, features, monkeypatch):
    looks = []

    class Counted(numbers.Buffer):
        def __init__(self, entries, *rest):
            looks.append(len(entries))
            super().__init__(entries, *rest)

    monkeypatch.setattr(numbers, "Buffer", Counted)
    monkeypatch.setattr(session, "Buffer", Counted)
    ram = tuple(MemoryRange(n * 2 * GIB, GIB) for n in range(64))
    policy = after(features=features, facts=GuestFacts(ram))
    for turn in range(12):
        buffer = make(turn)
        looks.clear()
        observe(policy, TargetRead(turn), PagesInflated(buffer), ActualWritten(turn))
        observe(policy, PagesDeflated(buffer[:9]), TargetRead(2**32 - 1 - turn))

        # As it is, swapped, and as slots; far more if once for each of 50 kinds.
        assert sum(looks) <= 3 * MOST_ENTRIES

    assert len(policy.policy_verdict().evidence) <= 30
    assert len(json.dumps(policy.policy_save())) < 1 << 20
