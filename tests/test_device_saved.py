"""Snapshots: a session is carried whole, or it is said what is missing (rule 4)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from examples import times
from fakes import (
    MUST_TELL_HOST,
    OPEN,
    RAM_PAGES,
    FakeHost,
    ScriptedPolicy,
    follow,
    opened,
    rig,
)
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.errors import HostError
from balloon_plugin.events import (
    ActualWritten,
    Answer,
    DriverReady,
    FeaturesAcked,
    Judgement,
    StateLoaded,
    TargetRead,
    Translation,
)
from balloon_plugin.policies.probe import ProbePolicy

# --- save and load ------------------------------------------------------------------


def session(made):
    """Let a driver live until a snapshot."""
    made.device.set_target(300)
    made.device.set_features(made.device.get_features() | 1 << 32)
    made.device.driver_ready()
    made.inflate(*range(10, 40))
    made.deflate(20)
    made.write_actual(29)
    made.device.set_config(12, b"\xaa\xbb\xcc\xdd")
    return json.loads(json.dumps(made.device.save()))


def restored(state, policy=None, **facts):
    made = rig(ScriptedPolicy(follow) if policy is None else policy, FakeHost(**facts))
    made.device.load(state)
    return made


def test_a_session_is_carried_whole():
    source = opened(gate=follow)
    state = session(source)

    made = restored(state)

    assert made.device.query() == source.device.query()
    assert made.device.save() == state
    assert made.device.get_config(0, 16) == source.device.get_config(0, 16)
    assert made.policy.loaded == [{"scripted": 1}]
    assert [each.verdict_known for each in made.recorder.of(StateLoaded)] == [True]


def test_a_restored_driver_goes_on():
    made = restored(session(opened(gate=follow)))

    made.device.set_target(50)
    made.inflate(20)
    made.deflate(10)

    assert made.host.count("config") >= 1
    assert made.host.discards == [(20, 1)]
    assert made.device.query().ballooned == 29


def test_a_driver_that_was_not_ready_is_not_ready_afterwards():
    source = opened(gate=follow)
    source.device.set_features(0)
    made = restored(source.device.save())

    made.device.set_target(50)

    assert made.host.count("config") == 0
    assert made.device.query().driver


def test_no_driver_is_none_afterwards():
    made = restored(opened(gate=follow).device.save())

    assert not made.device.query().driver
    assert made.device.query().features is None


def test_a_value_half_written_is_written_to_its_end():
    source = rig()
    source.write_actual(16)
    for at, byte in enumerate((256).to_bytes(4, "little")[:3], 4):
        source.device.set_config(at, bytes([byte]))
    made = restored(source.device.save(), ScriptedPolicy())

    made.device.set_config(7, b"\x00")

    assert made.recorder.of(ActualWritten) == [ActualWritten(256)]


def test_a_target_half_read_is_read_to_its_end():
    source = opened(gate=follow)
    source.device.set_target(300)
    for at in range(3):
        source.device.get_config(at, 1)
    source.device.set_target(0)
    made = restored(source.device.save())

    made.device.get_config(3, 1)

    assert made.recorder.of(TargetRead) == [TargetRead(300)]


def test_what_the_driver_broke_is_not_forgotten():
    source = rig()
    source.inflate(2**32 - 1)

    made = restored(source.device.save(), ScriptedPolicy())

    assert made.device.query().faults == 1


@pytest.mark.parametrize("policy", ["probe", "none", "feature-bit"])
@pytest.mark.parametrize("actual", [0, 16, 256])
def test_every_policy_carries_its_verdict(policy, actual):
    source = rig(policy)
    source.device.set_features(source.device.get_features())
    source.write_actual(actual)
    state = json.loads(json.dumps(source.device.save()))

    made = restored(state, policy)

    assert made.device.query() == source.device.query()
    assert made.device.query().balloon_pages == source.device.query().balloon_pages


def test_a_balloon_without_a_verdict_is_held_and_says_so():
    state = session(opened(gate=follow))
    state["policy"]["policy_state"] = None

    made = restored(state, "probe")

    shown = made.device.query()
    assert shown.verdict.judgement is Judgement.UNDECIDED
    assert made.target() == 300
    assert "without a verdict" in shown.gate.reason
    reply = made.device.set_target(0)
    assert reply.answer is Answer.REFUSED
    assert "without a verdict" in reply.reason
    made.inflate(100)
    assert made.host.discards == []
    assert [each.verdict_known for each in made.recorder.of(StateLoaded)] == [False]


def test_a_held_balloon_is_shown():
    state = session(opened(gate=follow))
    state["policy"]["policy_state"] = None

    made = restored(state, "probe")

    assert made.device.query().balloon_pages == 29


def test_a_held_balloon_is_not_probed():
    state = session(opened(gate=follow))
    state["policy"]["policy_state"] = None
    made = restored(state, "probe")

    made.write_actual(28)

    assert made.device.query().verdict.judgement is Judgement.UNDECIDED
    assert made.target() == 300


def test_a_held_balloon_is_asked_for_nothing_that_it_was_not_asked_for_before():
    swapped = 300 << 16  # as for a driver that reads its target the wrong way round
    source = opened(gate=lambda _: replace(follow(swapped), num_pages=swapped))

    made = restored(session(source), "probe")

    assert made.target() == swapped


def test_pages_whose_number_was_never_said_are_held_too():
    source = opened()
    source.inflate(1, 2, 3)
    state = source.device.save()
    state["policy"]["policy_state"] = None

    made = restored(state, "probe")

    assert made.device.set_target(0).answer is Answer.REFUSED


def test_a_verdict_of_another_policy_is_none():
    made = restored(session(opened(gate=follow)), "probe")

    assert [each.verdict_known for each in made.recorder.of(StateLoaded)] == [False]
    assert made.target() == 300


def test_a_policy_without_its_state_is_told_of_a_driver_with_an_empty_balloon():
    source = rig("none")
    source.device.set_features(1 << 32)
    source.device.driver_ready()

    made = restored(source.device.save(), "feature-bit")

    assert made.device.query().verdict.judgement is Judgement.BUGGY
    assert made.recorder.of(FeaturesAcked, DriverReady) == [
        FeaturesAcked(1 << 32),
        DriverReady(),
    ]


def test_a_driver_is_told_to_read_the_target_of_a_policy_that_begins_anew():
    source = rig("none")
    source.device.set_features(1 << 32)
    source.device.driver_ready()
    source.target()

    made = restored(source.device.save(), "probe")

    assert made.host.count("config") == 1
    assert made.target() == 16


def test_a_policy_with_its_state_knows_the_driver():
    source = rig("none")
    source.device.set_features(1 << 32)
    source.device.driver_ready()

    made = restored(source.device.save(), "none")

    assert made.recorder.of(FeaturesAcked, DriverReady) == []


def test_a_reset_ends_the_hold():
    state = session(opened(gate=follow))
    made = restored(state, "probe")

    made.device.reset()

    assert made.target() == 16
    assert made.device.query().gate.targets is Answer.DEFERRED


def test_a_hold_survives_another_snapshot():
    made = restored(session(opened(gate=follow)), "probe")

    again = restored(made.device.save(), "probe")

    assert again.target() == 300
    assert again.device.query().gate.targets is Answer.REFUSED


# --- how the driver was read --------------------------------------------------------


def reading_large_pages(requested):
    return replace(follow(requested), translation=Translation(pages_per_pfn=16))


def test_a_held_driver_is_read_as_before():
    source = opened(gate=reading_large_pages)
    source.inflate(1, 2, 3)

    made = restored(source.device.save(), "probe")
    made.deflate(3)

    assert made.device.query().ballooned == 32


def test_a_state_that_does_not_say_how_the_driver_was_read_is_taken_as_it_is():
    source = opened(gate=follow)
    source.inflate(1, 2, 3)
    state = source.device.save() | {"version": 3}
    del state["policy"]["advertised"], state["policy"]["translation"]
    del state["policy"]["read"]

    made = restored(state, "probe")
    made.deflate(3)

    assert made.device.query().ballooned == 2
    assert made.target() == 3


def test_a_restored_record_of_another_reading_is_never_given_back():
    source = opened(gate=replace(OPEN, reclaim=False), must_tell_host=True)
    source.device.set_features(MUST_TELL_HOST)
    source.inflate(*range(100, 116))

    made = rig(ScriptedPolicy(reading_large_pages), FakeHost(), must_tell_host=True)
    made.device.load(source.device.save())
    made.device.tick()

    assert made.host.discards == []


def test_a_balloon_that_does_not_fit_is_refused():
    source = opened(FakeHost(ram=[(0, RAM_PAGES), (8192, 16)]))
    source.inflate(8192)
    state = source.device.save()
    made = opened()
    before = made.device.query()

    with pytest.raises(HostError, match="does not fit this guest's RAM"):
        made.device.load(state)

    assert made.device.query() == before


def test_a_newer_state_is_refused():
    state = opened().device.save()
    made = opened()

    with pytest.raises(HostError, match="newer balloon_plugin"):
        made.device.load(state | {"version": state["version"] + 1})


NAMES = st.sampled_from(
    [
        *("version", "actual", "poison_val", "features", "ready", "ledger", "policy"),
        *("requested", "policy_state", "ballooned", "reclaimed", "chunks"),
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 100)
    | st.integers()
    | st.floats()
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
PATHS = [
    ("version",),
    ("actual",),
    ("target",),
    ("features",),
    ("ready",),
    ("ledger",),
    ("ledger", "chunks"),
    ("ledger", "chunks", "0"),
    ("ledger", "chunks", "0", "0"),
    ("policy",),
    ("policy", "requested"),
    ("policy", "policy"),
    ("policy", "advertised"),
    ("policy", "read"),
    ("policy", "translation"),
    ("policy", "translation", "pages_per_pfn"),
    ("policy", "policy_state"),
    ("policy", "policy_state", "actuals"),
    ("policy", "policy_state", "pages"),
]


def loads_or_refuses(made, state):
    """A damaged state leaves the device as it was; any other leaves one that works."""
    before = made.device.query()
    try:
        made.device.load(state)
    except HostError:
        assert made.device.query() == before
    made.device.query()
    json.dumps(made.device.save())
    made.inflate(1)
    assert made.inflateq.returned == [0]
    assert len(made.device.get_config(0, 16)) == 16


@given(JSON)
def test_any_json_is_loaded_or_a_host_error(state):
    loads_or_refuses(rig(ProbePolicy()), state)


@given(st.data())
@times(2)
def test_any_json_anywhere_in_a_state_too(data):
    source = rig(ProbePolicy())
    source.inflate(*range(16))
    source.write_actual(16)
    state = source.device.save()
    *way, last = data.draw(st.sampled_from(PATHS))
    place = state
    for name in way:
        place = place[name]
    if data.draw(st.booleans()):
        place[last] = data.draw(JSON)
    else:
        del place[last]

    loads_or_refuses(rig(ProbePolicy()), state)
