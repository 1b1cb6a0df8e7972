"""The policy that asks the driver for a feature bit."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.errors import PluginError
from balloon_plugin.events import (
    ActualWritten,
    Answer,
    ByteOrder,
    DeviceReset,
    DriverReady,
    FeaturesAcked,
    Gate,
    GuestDescribed,
    GuestFacts,
    Judgement,
    PagesInflated,
    TargetRead,
)
from balloon_plugin.policies.feature_bit import (
    VIRTIO_BALLOON_F_ENDIAN_SAFE,
    FeatureBitPolicy,
)

LITTLE, BIG = ByteOrder.LITTLE, ByteOrder.BIG
WITH_BIT = FeaturesAcked(1 << 22)
# All that a Linux 3.3 could accept of a legacy device: MUST_TELL_HOST, STATS_VQ,
# NOTIFY_ON_EMPTY, INDIRECT_DESC and EVENT_IDX.
WITHOUT_BIT = FeaturesAcked(0x3100_0003)

OPEN = Gate(5, reclaim=True, targets=Answer.ACCEPTED)


def guest(byte_order):
    return GuestDescribed(GuestFacts(ram=(), byte_order=byte_order))


def after(*events, **options):
    policy = FeatureBitPolicy(**options)
    for event in events:
        policy.policy_observe(event)
    return policy


def conclusion(policy):
    verdict = policy.policy_verdict()
    return verdict.judgement, verdict.state


# --- the options --------------------------------------------------------------------


def test_the_default_bit_is_one_that_a_legacy_driver_sees_and_nobody_owns():
    assert VIRTIO_BALLOON_F_ENDIAN_SAFE == 22
    assert FeatureBitPolicy().policy_features() == 1 << 22


@pytest.mark.parametrize("event", [guest(LITTLE), WITHOUT_BIT, DeviceReset()])
def test_the_bit_stays_on_offer(event):
    assert after(event).policy_features() == 1 << 22


@pytest.mark.parametrize("bit", [6, "6", 23, "23"])
def test_the_bit_can_be_chosen(bit):
    policy = after(FeaturesAcked(1 << int(bit)), bit=bit)

    assert policy.policy_features() == 1 << int(bit)
    assert conclusion(policy) == (Judgement.GOOD, "ACKED")


@pytest.mark.parametrize("bit", [-1, 24, 32, "high", None, True])
def test_a_bit_that_is_not_the_device_types_is_refused(bit):
    with pytest.raises(PluginError, match="bit takes a whole number from 0 to 23, not"):
        FeatureBitPolicy(bit=bit)


@pytest.mark.parametrize(
    ("bit", "name"),
    [
        (0, "VIRTIO_BALLOON_F_MUST_TELL_HOST"),
        (1, "VIRTIO_BALLOON_F_STATS_VQ"),
        (2, "VIRTIO_BALLOON_F_DEFLATE_ON_OOM"),
        (3, "VIRTIO_BALLOON_F_FREE_PAGE_HINT"),
        (4, "VIRTIO_BALLOON_F_PAGE_POISON"),
        ("5", "VIRTIO_BALLOON_F_REPORTING"),
    ],
)
def test_a_bit_that_the_balloon_uses_is_refused_by_name(bit, name):
    with pytest.raises(PluginError) as caught:
        FeatureBitPolicy(bit=bit)

    assert str(caught.value) == (
        f"the option bit cannot be {bit}, which is {name}: choose one from 6 to 23"
    )


def test_always_is_yes_or_no():
    with pytest.raises(PluginError, match="always takes yes or no"):
        FeatureBitPolicy(always="sometimes")


# --- the verdict --------------------------------------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        [],
        [guest(None)],
        [guest(BIG)],
        [guest(LITTLE)],
        # A legacy driver may do all of this before its features are known (D19).
        [guest(LITTLE), TargetRead(0), PagesInflated((1, 2)), ActualWritten(2)],
    ],
)
def test_before_features_are_accepted_all_waits(events):
    policy = after(*events)

    verdict = policy.policy_verdict()
    assert (verdict.judgement, verdict.state) == (Judgement.UNDECIDED, "WAITING")
    assert (verdict.defects, verdict.evidence) == ((), ())
    gate = policy.policy_gate(5)
    assert (gate.num_pages, gate.reclaim) == (0, False)
    assert gate.targets is Answer.DEFERRED
    assert "no driver has accepted its features yet" in gate.reason


@pytest.mark.parametrize("byte_order", [None, BIG, LITTLE])
@pytest.mark.parametrize("always", [False, True])
def test_a_driver_with_the_bit_is_good(byte_order, always):
    policy = after(guest(byte_order), WITH_BIT, always=always)

    assert policy.policy_gate(5) == OPEN
    verdict = policy.policy_verdict()
    assert (verdict.judgement, verdict.state) == (Judgement.GOOD, "ACKED")
    [evidence] = verdict.evidence
    assert evidence.event == "features acked = 0x400000"
    assert "accepted VIRTIO_BALLOON_F_ENDIAN_SAFE (bit 22)" in evidence.shows


@pytest.mark.parametrize(
    ("byte_order", "always"),
    [(None, "no"), (BIG, "no"), (None, "yes"), (BIG, "yes"), (LITTLE, "yes")],
)
def test_a_driver_without_the_bit_is_refused_and_nothing_is_said_to_be_shown(
    byte_order, always
):
    policy = after(guest(byte_order), WITHOUT_BIT, always=always)

    gate = policy.policy_gate(5)
    assert (gate.num_pages, gate.reclaim) == (0, False)
    assert gate.targets is Answer.REFUSED
    assert "did not accept VIRTIO_BALLOON_F_ENDIAN_SAFE (bit 22)" in gate.reason
    verdict = policy.policy_verdict()
    assert (verdict.judgement, verdict.state) == (Judgement.BUGGY, "NOT_ACKED")
    assert verdict.defects == ()
    [evidence] = verdict.evidence
    assert evidence.event == "features acked = 0x31000003"
    assert "proves nothing" in evidence.shows
    assert "fixed before there was a bit" in evidence.shows


def test_a_little_endian_guest_needs_no_bit():
    policy = after(guest(LITTLE), WITHOUT_BIT)

    assert policy.policy_gate(5) == OPEN
    verdict = policy.policy_verdict()
    assert (verdict.judgement, verdict.state) == (Judgement.GOOD, "LITTLE_ENDIAN")
    [evidence] = verdict.evidence
    assert evidence.event == "the guest is little-endian"


@given(st.integers(0, 2**64 - 1), st.integers(6, 23))
def test_only_the_one_bit_counts(features, bit):
    policy = after(FeaturesAcked(features), bit=bit)

    is_good = policy.policy_gate(5) == OPEN

    assert is_good is bool(features & (1 << bit))


# --- what changes later -------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then", "judgement"),
    [
        (None, LITTLE, Judgement.GOOD),
        (BIG, LITTLE, Judgement.GOOD),
        (LITTLE, BIG, Judgement.BUGGY),
        (LITTLE, None, Judgement.BUGGY),
    ],
)
def test_the_verdict_follows_what_the_host_says_of_the_guest(first, then, judgement):
    policy = after(guest(first), WITHOUT_BIT)

    policy.policy_observe(guest(then))

    assert conclusion(policy)[0] is judgement
    assert policy.policy_gate(5).reclaim is (judgement is Judgement.GOOD)


def test_the_byte_order_may_be_told_after_the_features():
    policy = after(WITHOUT_BIT, guest(LITTLE))

    assert conclusion(policy) == (Judgement.GOOD, "LITTLE_ENDIAN")


def test_a_reset_forgets_the_features_and_keeps_the_byte_order():
    policy = after(guest(LITTLE), WITH_BIT, DeviceReset())
    assert conclusion(policy) == (Judgement.UNDECIDED, "WAITING")

    policy.policy_observe(WITHOUT_BIT)

    assert conclusion(policy) == (Judgement.GOOD, "LITTLE_ENDIAN")


def test_a_new_driver_is_asked_anew():
    policy = after(WITH_BIT, DeviceReset(), WITHOUT_BIT)

    assert conclusion(policy) == (Judgement.BUGGY, "NOT_ACKED")


def test_what_else_a_driver_does_changes_nothing():
    policy = after(WITHOUT_BIT)
    before = policy.policy_verdict(), policy.policy_gate(5)

    for event in (DriverReady(), TargetRead(0), ActualWritten(256)):
        policy.policy_observe(event)

    assert (policy.policy_verdict(), policy.policy_gate(5)) == before


# --- saved state --------------------------------------------------------------------


@pytest.mark.parametrize(
    "seen", [[], [WITH_BIT], [WITHOUT_BIT], [FeaturesAcked(0)], [FeaturesAcked(2**63)]]
)
def test_saved_state_survives_json(seen):
    policy, restored = after(*seen), FeatureBitPolicy()

    restored.policy_load(json.loads(json.dumps(policy.policy_save())))

    assert restored.policy_verdict() == policy.policy_verdict()
    assert restored.policy_gate(5) == policy.policy_gate(5)


def test_the_byte_order_is_for_the_next_host_to_say():
    saved = after(guest(LITTLE), WITHOUT_BIT).policy_save()
    restored = after(guest(BIG))

    restored.policy_load(saved)

    assert conclusion(restored) == (Judgement.BUGGY, "NOT_ACKED")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "not offered bit 22"),
        ({"features": 1 << 22}, "not offered bit 22"),
        ({"bit": 21, "features": 1 << 22}, "not offered bit 22"),
        ({"bit": 22}, "no features"),
        ({"bit": 22, "features": "1"}, "no features"),
        ({"bit": 22, "features": True}, "no features"),
        ({"bit": 22, "features": -1}, "no features"),
        ({"bit": 22, "features": 2**64}, "no features"),
        ({"bit": 22, "features": [1]}, "no features"),
    ],
)
def test_damaged_state_is_refused_and_changes_nothing(state, message):
    policy = after(WITHOUT_BIT)
    before = policy.policy_verdict()

    with pytest.raises(ValueError, match=message):
        policy.policy_load(state)

    assert policy.policy_verdict() == before
