"""What the device relies on, of every built-in policy with whatever options."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial

import pluggy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin import hookspecs
from balloon_plugin.events import (
    ActualWritten,
    Answer,
    ByteOrder,
    DeviceReset,
    DriverReady,
    FeaturesAcked,
    Gate,
    GateChanged,
    GuestDescribed,
    GuestFacts,
    GuestFault,
    Judgement,
    PagesDeflated,
    PagesInflated,
    PagesReclaimed,
    PluginFailed,
    StateLoaded,
    StatsReceived,
    TargetAnswered,
    TargetRead,
    TargetReply,
    TargetRequested,
    TimePassed,
    Verdict,
    VerdictChanged,
)
from balloon_plugin.layouts import DEVICE_FEATURES_MASK
from balloon_plugin.policies.feature_bit import FeatureBitPolicy
from balloon_plugin.policies.none import NonePolicy
from balloon_plugin.policies.probe import ProbePolicy

FACTORIES = {
    "none": NonePolicy,
    "probe": ProbePolicy,
    "probe:pages=32": partial(ProbePolicy, pages="32"),
    "feature-bit": FeatureBitPolicy,
    "feature-bit:always=yes": partial(FeatureBitPolicy, always="yes"),
}

MAX_EVIDENCE = 30
"""Tens of entries at most, says the contract of a verdict."""


@dataclass(frozen=True)
class FromTheFuture:
    """An event that a later version may bring."""

    what: str = "?"


U32 = st.integers(0, 2**32 - 1)
ACTUALS = st.one_of(st.sampled_from([0, 1, 16, 17, 32, 256]), U32)
FEATURES = st.one_of(st.sampled_from([0, 1 << 22, 0x3100_0003]), st.integers(0, 2**64))
PFNS = st.lists(U32, max_size=8).map(tuple)
DESCRIPTIONS = st.builds(
    GuestDescribed,
    st.builds(
        GuestFacts,
        ram=st.just(()),
        byte_order=st.sampled_from([None, *ByteOrder]),
        page_size=st.sampled_from([None, 4096, 65536]),
    ),
)
SHOWN_TO_POLICIES = st.one_of(
    DESCRIPTIONS,
    FEATURES.map(lambda bits: FeaturesAcked(bits & (2**64 - 1))),
    st.just(DriverReady()),
    U32.map(TargetRead),
    ACTUALS.map(ActualWritten),
    PFNS.map(PagesInflated),
    PFNS.map(PagesDeflated),
    st.just(StatsReceived(((4, 1), (999, 2**64 - 1)))),
    st.just(DeviceReset()),
    U32.map(TargetRequested),
    st.floats(0, 1e9).map(TimePassed),
)
# Drivers that do something whole, or chance would seldom lead to a verdict.
DRIVERS = st.sampled_from(
    [
        [FeaturesAcked(0), TargetRead(16), ActualWritten(16), ActualWritten(0)],
        [FeaturesAcked(1 << 22), DriverReady(), ActualWritten(3), ActualWritten(0)],
        [TargetRead(268435456), ActualWritten(256)],
    ]
)
STREAMS = st.lists(SHOWN_TO_POLICIES.map(lambda one: [one]) | DRIVERS, max_size=8).map(
    lambda parts: [event for part in parts for event in part]
)
FOR_OBSERVERS_ALONE = [
    GuestFault("a buffer is not in RAM", 0),
    GateChanged(Gate(0, reclaim=False, targets=Answer.REFUSED)),
    VerdictChanged(Verdict(Judgement.GOOD, "GOOD")),
    PagesReclaimed(1, ((1, 1),)),
    TargetAnswered(TargetReply(Answer.REFUSED, "no", 0)),
    StateLoaded(verdict_known=False),
    PluginFailed("x", "balloon_event", "ValueError"),
    FromTheFuture(),
]
# A short alphabet, because the tables of all Unicode take seconds to build.
TEXT = st.text("ab0", max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner),
    max_leaves=6,
)
# Keys that some policy knows, so that damage goes deeper than a missing key.
SAVED = st.dictionaries(
    st.sampled_from(["sign", "pages", "actuals", "bit", "features"]),
    st.sampled_from([16, 22, [], [16], [16, 0], "features acked", 1 << 22]) | JSON,
)


def observe(policy, events):
    for event in events:
        policy.policy_observe(event)


def seen(policy):
    return policy.policy_gate(7), policy.policy_gate(4096), policy.policy_verdict()


@pytest.fixture(params=FACTORIES.values(), ids=FACTORIES.keys(), scope="module")
def make(request):
    return request.param


def test_a_policy_fits_the_hooks(make):
    plugins = pluggy.PluginManager(hookspecs.PROJECT)
    plugins.add_hookspecs(hookspecs)

    plugins.register(make())

    plugins.check_pending()
    assert isinstance(plugins.hook.policy_gate(requested=1), Gate)
    assert isinstance(plugins.hook.policy_verdict(), Verdict)


def test_a_policy_says_in_one_line_what_it_is():
    for factory in (NonePolicy, ProbePolicy, FeatureBitPolicy):
        first, blank, *_ = factory.__doc__.splitlines()
        assert first.endswith(".")
        assert blank == ""


@given(events=STREAMS, requested=U32)
def test_any_stream_of_events_leaves_a_gate_that_makes_sense(make, events, requested):
    policy = make()

    observe(policy, events)

    gate = policy.policy_gate(requested)
    assert 0 <= gate.num_pages < 2**32
    assert gate.reclaim is (gate.targets is Answer.ACCEPTED)
    assert bool(gate.reason) is (gate.targets is not Answer.ACCEPTED)
    if gate.targets is Answer.ACCEPTED:
        assert gate.num_pages == requested


@given(events=STREAMS)
def test_any_stream_of_events_leaves_evidence_that_can_be_read(make, events):
    policy = make()

    observe(policy, events)

    verdict = policy.policy_verdict()
    assert verdict.state
    assert len(verdict.evidence) <= MAX_EVIDENCE
    assert bool(verdict.evidence) or verdict.judgement is Judgement.UNDECIDED
    for one in verdict.evidence:
        assert 0 < len(one.event) < 60
        assert 0 < len(one.shows) < 200
        assert one.shows[0].isupper()
        assert one.shows.endswith(".")
        assert "{" not in one.event + one.shows


@given(events=STREAMS)
def test_only_a_good_driver_has_an_open_gate_but_with_none(make, events):
    policy = make()

    observe(policy, events)

    is_good = policy.policy_verdict().judgement is Judgement.GOOD
    if make is not NonePolicy:
        assert policy.policy_gate(7).reclaim is is_good


@given(events=STREAMS)
def test_asking_changes_nothing(make, events):
    policy = make()
    observe(policy, events)

    first = seen(policy), policy.policy_save()

    assert (seen(policy), policy.policy_save()) == first


@given(events=STREAMS, event=st.sampled_from(FOR_OBSERVERS_ALONE))
def test_events_that_are_not_for_policies_are_ignored(make, events, event):
    policy = make()
    observe(policy, events)
    before = seen(policy)

    policy.policy_observe(event)

    assert seen(policy) == before


@given(description=DESCRIPTIONS, events=STREAMS)
def test_after_a_reset_nothing_is_known_but_what_the_host_said(
    make, description, events
):
    policy, fresh = make(), make()

    observe(policy, [*events, description, DeviceReset()])
    observe(fresh, [description])

    assert seen(policy) == seen(fresh)


@given(description=DESCRIPTIONS, before=STREAMS, after=STREAMS)
def test_a_restored_policy_goes_on_as_the_saved_one_would(
    make, description, before, after
):
    policy, restored = make(), make()
    observe(policy, [*before, description])
    observe(restored, [description])

    restored.policy_load(json.loads(json.dumps(policy.policy_save())))

    assert seen(restored) == seen(policy)
    observe(policy, after)
    observe(restored, after)
    assert seen(restored) == seen(policy)


@given(events=STREAMS, state=SAVED)
def test_damaged_state_raises_value_error_and_changes_nothing(make, events, state):
    policy = make()
    observe(policy, events)
    before = seen(policy)

    try:
        policy.policy_load(state)
    except ValueError:
        assert seen(policy) == before
    else:
        assert state.items() >= policy.policy_save().items()


@given(events=STREAMS)
def test_the_offer_of_features_never_changes(make, events):
    policy = make()
    offer = getattr(policy, "policy_features", int)
    first = offer()

    observe(policy, events)

    assert offer() == first
    assert first & ~DEVICE_FEATURES_MASK == 0
