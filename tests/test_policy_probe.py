"""The policy that is the RFC, against traces and a second reading of the patch.

``Patch`` below is the patch once more, written from its switch statements and from
nothing in the policy. A state machine drives both with whatever a driver and a user can
do, and they must agree on all that the driver or the user could notice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from balloon_plugin.errors import PluginError
from balloon_plugin.events import (
    ActualWritten,
    Answer,
    ByteOrder,
    Defect,
    DeviceReset,
    DriverReady,
    FeaturesAcked,
    Gate,
    GuestDescribed,
    GuestFacts,
    Judgement,
    PagesDeflated,
    PagesInflated,
    StatsReceived,
    TargetRead,
    TargetRequested,
    TimePassed,
)
from balloon_plugin.policies.probe import ProbePolicy, State

TESTING_GATE = Gate(
    16,
    reclaim=False,
    targets=Answer.DEFERRED,
    reason="the driver is being tested; the target takes effect if it is good",
)
CLEANUP_GATE = Gate(
    0,
    reclaim=False,
    targets=Answer.DEFERRED,
    reason="the driver has yet to take back the pages of its test; "
    "the target takes effect when it has",
)
BUGGY_GATE = Gate(
    0,
    reclaim=False,
    targets=Answer.REFUSED,
    reason="Guest is buggy, cannot use balloon",
)
GOOD_GATE = Gate(4096, reclaim=True, targets=Answer.ACCEPTED)


def after(*actuals, **options):
    policy = ProbePolicy(**options)
    for actual in actuals:
        policy.policy_observe(ActualWritten(actual))
    return policy


def state(policy):
    return policy.policy_verdict().state


# --- the states, one by one ---------------------------------------------------------


@pytest.mark.parametrize(
    ("actuals", "gate", "judgement", "name"),
    [
        ((), TESTING_GATE, Judgement.UNDECIDED, "TESTING"),
        ((16,), CLEANUP_GATE, Judgement.UNDECIDED, "CLEANUP"),
        ((256,), BUGGY_GATE, Judgement.BUGGY, "BUGGY"),
        ((16, 0), GOOD_GATE, Judgement.GOOD, "GOOD"),
    ],
)
def test_each_state_has_its_gate_and_its_judgement(actuals, gate, judgement, name):
    policy = after(*actuals)

    assert policy.policy_gate(4096) == gate
    verdict = policy.policy_verdict()
    assert (verdict.judgement, verdict.state) == (judgement, name)


def test_the_reasons_differ_where_a_target_has_to_wait_or_is_refused():
    reasons = {gate.reason for gate in (TESTING_GATE, CLEANUP_GATE, BUGGY_GATE)}

    assert len(reasons) == 3


@pytest.mark.parametrize(
    ("actuals", "name"),
    [
        # drivers.md section 2: what each driver writes when it is asked for 16
        ((16, 0), "GOOD"),  # fixed, any page size to 64 KiB
        ((256,), "BUGGY"),  # pre-3.4 big-endian: reads 0x10000000, takes a full batch
        ((0, 256), "BUGGY"),  # the same, where the first byte of 256 is taken alone
        ((65536,), "BUGGY"),  # 3.19 to 4.0 big-endian with VERSION_1
        # ... and the holes of the RFC, which stay
        ((10, 0), "GOOD"),  # pre-3.4 big-endian with 10 pages to spare: not noticed
        ((3, 16, 0), "GOOD"),  # fixed, short of memory: right by luck
        ((64,), "BUGGY"),  # fixed with 256 KiB pages: one page is 64
        ((16, 272, 528), "CLEANUP"),  # 2.6.25: reads 0 as "take more", for ever
        ((0, 0, 0), "TESTING"),  # no memory, or a driver that only writes 0
        ((17,), "BUGGY"),
        ((1,), "CLEANUP"),
    ],
)
def test_known_drivers_end_where_the_rfc_puts_them(actuals, name):
    assert state(after(*actuals)) == name


@pytest.mark.parametrize("actual", [0, 1, 16, 17, 256, 2**32 - 1])
@pytest.mark.parametrize("actuals", [(256,), (16, 0)])
def test_buggy_and_good_are_for_the_rest_of_the_session(actuals, actual):
    policy = after(*actuals)
    before = policy.policy_verdict(), policy.policy_gate(9)

    policy.policy_observe(ActualWritten(actual))

    assert (policy.policy_verdict(), policy.policy_gate(9)) == before


@pytest.mark.parametrize("actuals", [(16,), (256,), (16, 0)])
def test_a_reset_tests_the_next_driver_from_the_beginning(actuals):
    policy = after(*actuals)

    policy.policy_observe(DeviceReset())

    assert policy.policy_gate(4096) == TESTING_GATE
    assert policy.policy_verdict().evidence == ()
    assert state(policy) == "TESTING"


# --- the evidence -------------------------------------------------------------------


def test_a_good_driver_leaves_two_pieces_of_evidence():
    first, second = after(0, 16, 16, 3, 0, 0, 700).policy_verdict().evidence

    assert (first.event, second.event) == ("actual = 16", "actual = 0")
    assert "no more than the 16 pages" in first.shows
    assert "took back the pages of its test" in second.shows


def test_a_buggy_driver_is_told_of_in_the_words_of_the_patch():
    verdict = after(256, 512, 0).policy_verdict()

    assert verdict.defects == (Defect.ENDIAN_TARGET,)
    [evidence] = verdict.evidence
    assert evidence.event == "actual = 256"
    assert evidence.shows == (
        "Buggy guest detected, disabling balloon: "
        "it took more than the 16 pages asked for."
    )


@pytest.mark.parametrize("actuals", [(), (16,), (16, 0)])
def test_no_defect_is_claimed_of_others(actuals):
    assert after(*actuals).policy_verdict().defects == ()


# --- the option ---------------------------------------------------------------------


@pytest.mark.parametrize("pages", [1, "1", 32, "240", 2**20, "1048576"])
def test_another_target_can_be_asked_for(pages):
    number = int(pages)

    assert ProbePolicy(pages=pages).policy_gate(9).num_pages == number
    assert state(after(number, pages=pages)) == "CLEANUP"
    assert state(after(number + 1, pages=pages)) == "BUGGY"
    [evidence] = after(number, pages=pages).policy_verdict().evidence
    assert f"the {number} pages asked for" in evidence.shows


@pytest.mark.parametrize("pages", [0, "0", -16, 2**20 + 1, "many", "", None, True, 1.5])
def test_a_target_that_makes_no_sense_is_refused_in_a_sentence(pages):
    with pytest.raises(PluginError) as caught:
        ProbePolicy(pages=pages)

    assert str(caught.value) == (
        f"the option pages takes a whole number from 1 to 1048576, not {pages!r}"
    )


# --- saved state --------------------------------------------------------------------


@pytest.mark.parametrize("actuals", [(), (0,), (16,), (256,), (16, 0), (3, 9, 0, 500)])
def test_saved_state_survives_json(actuals):
    policy, restored = after(*actuals), ProbePolicy()

    restored.policy_load(json.loads(json.dumps(policy.policy_save())))

    assert restored.policy_verdict() == policy.policy_verdict()
    assert restored.policy_gate(9) == policy.policy_gate(9)


def test_a_restored_driver_is_judged_by_what_it_was_asked_for():
    restored = ProbePolicy(pages=16)

    restored.policy_load(ProbePolicy(pages=32).policy_save())

    assert restored.policy_gate(9).num_pages == 32
    restored.policy_observe(ActualWritten(32))
    assert state(restored) == "CLEANUP"
    restored.policy_observe(DeviceReset())
    assert restored.policy_gate(9).num_pages == 16


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({}, "pages and a list"),
        ({"pages": 16}, "pages and a list"),
        ({"actuals": []}, "pages and a list"),
        ({"pages": "16", "actuals": []}, "pages and a list"),
        ({"pages": 0, "actuals": []}, "pages and a list"),
        ({"pages": 2**20 + 1, "actuals": []}, "pages and a list"),
        ({"pages": 16, "actuals": 16}, "pages and a list"),
        ({"pages": 16, "actuals": [0]}, "actual = 0 moves no probe in TESTING"),
        ({"pages": 16, "actuals": [16, 16]}, "actual = 16 moves no probe in CLEANUP"),
        ({"pages": 16, "actuals": [256, 0]}, "actual = 0 moves no probe in BUGGY"),
        ({"pages": 16, "actuals": [16, 0, 0]}, "actual = 0 moves no probe in GOOD"),
        ({"pages": 16, "actuals": ["16"]}, "actual = '16' moves no probe"),
        ({"pages": 16, "actuals": [True]}, "actual = True moves no probe"),
        ({"pages": 16, "actuals": [-1]}, "actual = -1 moves no probe"),
        ({"pages": 16, "actuals": [2**32]}, "moves no probe in TESTING"),
        ({"pages": 16, "actuals": [None]}, "moves no probe in TESTING"),
    ],
)
def test_damaged_state_is_refused_and_changes_nothing(saved, message):
    policy = after(256)
    before = policy.policy_verdict()

    with pytest.raises(ValueError, match=message):
        policy.policy_load(saved)

    assert policy.policy_verdict() == before


# --- the patch, read a second time --------------------------------------------------

TESTING, CLEANUP, BUGGY, GOOD = range(4)
GUEST_BUG_TARGET = 16
DETECTED = "virtio-balloon: Buggy guest detected, disabling balloon"
CANNOT_USE = "Guest is buggy, cannot use balloon"

# virtio_balloon_get_config: the cases of its switch; ``default`` is dev->num_pages
GET_CONFIG = {TESTING: GUEST_BUG_TARGET, CLEANUP: 0, BUGGY: 0}

# virtio_balloon_set_config: (state, condition, next state, printed), first match wins.
# Each row that matches ends with virtio_notify_config; ``default`` does not notify.
SET_CONFIG = (
    (TESTING, lambda actual: actual > GUEST_BUG_TARGET, BUGGY, DETECTED),
    (TESTING, lambda actual: actual != 0, CLEANUP, None),
    (CLEANUP, lambda actual: actual == 0, GOOD, None),
)

# virtio_balloon_handle_output: page numbers are passed over unless ... == GOOD
HANDLE_OUTPUT = {TESTING: False, CLEANUP: False, BUGGY: False, GOOD: True}

# virtio_balloon_to_target: is the target stored, what is printed, is the driver told
TO_TARGET = {
    TESTING: (True, None, False),
    CLEANUP: (True, None, False),
    # The code stores it here as well. Step 6 of the description: "otherwise ignore it".
    BUGGY: (False, CANNOT_USE, False),
    GOOD: (True, None, True),
}


@dataclass
class Patch:
    """The device of the patch, as far as it differs from the one before."""

    guest_bug_state: int = TESTING
    num_pages: int = 0
    printed: str | None = None
    notified: bool = False

    def get_config(self):
        return GET_CONFIG.get(self.guest_bug_state, self.num_pages)

    def reclaims(self):
        return HANDLE_OUTPUT[self.guest_bug_state]

    def set_config(self, actual):
        self.printed, self.notified = None, False
        for state, condition, following, printed in SET_CONFIG:
            if state == self.guest_bug_state and condition(actual):
                self.guest_bug_state, self.printed = following, printed
                self.notified = True
                return

    def to_target(self, num_pages):
        stored, self.printed, self.notified = TO_TARGET[self.guest_bug_state]
        if stored:
            self.num_pages = num_pages

    def reset(self):
        # Not in the patch: rule 4, a verdict dies with its driver.
        self.guest_bug_state, self.printed = TESTING, None


NAMES = {
    TESTING: State.TESTING,
    CLEANUP: State.CLEANUP,
    BUGGY: State.BUGGY,
    GOOD: State.GOOD,
}
JUDGEMENTS = {BUGGY: Judgement.BUGGY, GOOD: Judgement.GOOD}
ACTUALS = st.one_of(
    st.sampled_from([0, 1, 15, 16, 17, 64, 256, 272, 65536, 2**32 - 1]),
    st.integers(0, 2**32 - 1),
)
PFNS = st.lists(st.integers(0, 2**32 - 1), max_size=20).map(tuple)
OTHER_EVENTS = st.one_of(
    st.sampled_from(list(ByteOrder)).map(
        lambda order: GuestDescribed(GuestFacts(ram=(), byte_order=order))
    ),
    st.integers(0, 2**64 - 1).map(FeaturesAcked),
    st.just(DriverReady()),
    ACTUALS.map(TargetRead),
    PFNS.map(PagesInflated),
    PFNS.map(PagesDeflated),
    st.just(StatsReceived(((4, 1),))),
    st.integers(0, 2**32 - 1).map(TargetRequested),
    st.floats(0, 1e9).map(TimePassed),
)


class ProbeIsThePatch(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.patch = Patch()
        self.policy = ProbePolicy()

    def gate(self):
        return self.policy.policy_gate(self.patch.num_pages)

    @rule(actual=ACTUALS)
    def driver_writes_actual(self, actual):
        before = self.gate()

        self.patch.set_config(actual)
        self.policy.policy_observe(ActualWritten(actual))

        # "Changing bug state implicitly alters the config", and the gate.
        assert (self.gate() != before) is self.patch.notified
        if self.patch.printed:
            words = self.patch.printed.removeprefix("virtio-balloon: ")
            assert words in self.policy.policy_verdict().evidence[-1].shows

    # Values drawn alone seldom finish a test, so let some drivers behave.
    @rule(pages=st.integers(1, GUEST_BUG_TARGET))
    def good_driver_follows_its_target(self, pages):
        self.driver_writes_actual(pages if self.gate().num_pages else 0)

    @rule(num_pages=st.integers(0, 2**20))
    def user_sets_target(self, num_pages):
        before, answer = self.gate(), self.gate().targets
        stored = self.patch.num_pages

        self.patch.to_target(num_pages)

        assert (answer is Answer.REFUSED) is (self.patch.printed is not None)
        if self.patch.printed:
            assert before.reason == self.patch.printed
        # Deferred: stored, but the driver is not told. Accepted: it is.
        assert (answer is Answer.ACCEPTED) is self.patch.notified
        changed = self.patch.notified and self.patch.num_pages != stored
        assert (self.gate() != before) is changed

    @rule(event=OTHER_EVENTS)
    def anything_else_happens(self, event):
        before = self.gate(), self.policy.policy_verdict()

        self.policy.policy_observe(event)

        assert (self.gate(), self.policy.policy_verdict()) == before

    @precondition(lambda self: self.patch.guest_bug_state != TESTING)
    @rule()
    def driver_resets(self):
        self.patch.reset()
        self.policy.policy_observe(DeviceReset())

    @rule()
    def host_saves_and_loads(self):
        saved = json.loads(json.dumps(self.policy.policy_save()))
        before = self.policy.policy_verdict()

        self.policy = ProbePolicy()
        self.policy.policy_load(saved)

        assert self.policy.policy_verdict() == before

    @invariant()
    def both_show_the_same(self):
        gate, verdict = self.gate(), self.policy.policy_verdict()
        bug_state = self.patch.guest_bug_state
        assert gate.num_pages == self.patch.get_config()
        assert gate.reclaim is self.patch.reclaims()
        assert verdict.state == NAMES[bug_state].value
        assert verdict.judgement is JUDGEMENTS.get(bug_state, Judgement.UNDECIDED)
        assert len(verdict.evidence) <= 2


TestProbeIsThePatch = ProbeIsThePatch.TestCase
