"""Events in, the gate that holds out; and what becomes of the user's target."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from fakes import GOOD, OPEN, REFUSING, SHUT, Recorder, ScriptedPolicy, calls, follow

from balloon_plugin.events import (
    ActualWritten,
    Answer,
    Defect,
    DeviceReset,
    DriverReady,
    Evidence,
    Gate,
    GateChanged,
    GuestDescribed,
    GuestFacts,
    Judgement,
    PagesInflated,
    PluginFailed,
    StateLoaded,
    TargetAnswered,
    TargetRead,
    TargetReply,
    TargetRequested,
    TimePassed,
    Translation,
    Verdict,
    VerdictChanged,
)
from balloon_plugin.gatekeeper import Gatekeeper

BUGGY = Verdict(Judgement.BUGGY, "CAUGHT", (Defect.ENDIAN_TARGET,))
TICK = TimePassed(0)


class Keeper(Gatekeeper):
    """A gatekeeper with its policy and its listeners at hand."""

    def __init__(self, gate=SHUT, *, settled=True):
        self.scripted = ScriptedPolicy(gate)
        self.recorder = Recorder()
        self.announcements = 0
        policy, observers = calls(self.scripted, self.recorder)
        super().__init__(policy, observers, self.count_announcement)
        if settled:
            self.observe(TICK)
            self.forget()

    def count_announcement(self):
        self.announcements += 1

    def forget(self):
        self.announcements = 0
        self.recorder.events.clear()
        self.scripted.seen.clear()

    @property
    def answered(self):
        return [event.reply for event in self.recorder.of(TargetAnswered)]


# --- events and the gate ------------------------------------------------------------


def test_before_the_first_event_nothing_is_allowed():
    keeper = Keeper(OPEN, settled=False)

    assert not keeper.gate.reclaim
    assert keeper.gate.num_pages == 0
    assert keeper.gate.targets is Answer.DEFERRED
    assert keeper.verdict.judgement is Judgement.UNDECIDED


def test_the_gate_is_asked_after_each_event_for_the_requested_target():
    keeper = Keeper()
    keeper.requested = 77

    keeper.observe(DriverReady())
    keeper.observe(ActualWritten(1))

    assert keeper.scripted.seen == [DriverReady(), ActualWritten(1)]
    assert keeper.scripted.requests[-2:] == [77, 77]


def test_the_gate_that_holds_is_the_one_after_the_event():
    keeper = Keeper(OPEN)
    keeper.scripted.after[PagesInflated] = SHUT

    keeper.observe(PagesInflated((1,)))

    assert keeper.gate == SHUT


def test_changes_are_told_to_observers_after_what_caused_them():
    keeper = Keeper()
    keeper.scripted.after[DriverReady] = OPEN
    keeper.scripted.verdict = BUGGY

    keeper.observe(DriverReady())

    caused, *changes = keeper.recorder.events
    assert caused == DriverReady()
    assert sorted(changes, key=repr) == [GateChanged(OPEN), VerdictChanged(BUGGY)]
    assert keeper.verdict == BUGGY


def test_what_stays_is_not_told():
    keeper = Keeper(OPEN)

    keeper.observe(TICK)

    assert keeper.recorder.events == [TICK]
    assert keeper.announcements == 0


def test_more_evidence_is_no_other_verdict():
    keeper = Keeper()
    more = Verdict(GOOD.judgement, GOOD.state, evidence=(Evidence("this", "that"),))
    keeper.scripted.verdict = more

    keeper.observe(TICK)

    assert keeper.recorder.of(VerdictChanged) == []
    assert keeper.verdict == more


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(Judgement.UNDECIDED, GOOD.state),
        Verdict(GOOD.judgement, "ELSEWHERE"),
        Verdict(GOOD.judgement, GOOD.state, (Defect.NO_ACTUAL,)),
    ],
)
def test_judgement_state_and_defects_are_the_verdict(verdict):
    keeper = Keeper()
    keeper.scripted.verdict = verdict

    keeper.observe(TICK)

    assert keeper.recorder.of(VerdictChanged) == [VerdictChanged(verdict)]


@pytest.mark.parametrize(
    "gate",
    [
        Gate(1, reclaim=False, targets=Answer.DEFERRED),
        Gate(0, reclaim=True, targets=Answer.DEFERRED),
        Gate(0, reclaim=False, targets=Answer.ACCEPTED),
        Gate(0, reclaim=False, targets=Answer.REFUSED),
        Gate(0, reclaim=False, targets=Answer.DEFERRED, nudges=1),
    ],
)
def test_a_change_of_what_the_gate_can_do_is_announced_once(gate):
    keeper = Keeper(Gate(0, reclaim=False, targets=Answer.DEFERRED))
    keeper.scripted.gate = gate

    keeper.observe(TICK)
    keeper.observe(TICK)

    assert keeper.announcements == 1


@pytest.mark.parametrize(
    "gate",
    [
        Gate(0, reclaim=False, targets=Answer.DEFERRED, reason="another"),
        Gate(
            0,
            reclaim=False,
            targets=Answer.DEFERRED,
            reason="wait",
            translation=Translation(swap_pfns=True),
        ),
    ],
)
def test_what_the_driver_cannot_notice_is_told_and_not_announced(gate):
    keeper = Keeper(SHUT)
    keeper.scripted.gate = gate

    keeper.observe(TICK)

    assert keeper.recorder.of(GateChanged) == [GateChanged(gate)]
    assert keeper.announcements == 0


def test_the_policy_is_known_by_its_name_and_asked_for_its_features():
    keeper = Keeper()
    keeper.scripted.features = 1 << 22

    assert keeper.policy_name == "scripted"
    assert keeper.features() == 1 << 22


def test_an_event_for_observers_is_not_for_the_policy():
    keeper = Keeper()

    keeper.emit(StateLoaded(verdict_known=True))

    assert keeper.recorder.events == [StateLoaded(verdict_known=True)]
    assert keeper.scripted.seen == []


# --- targets ------------------------------------------------------------------------


def test_an_accepted_target_is_told_shown_and_announced():
    keeper = Keeper(follow)

    reply = keeper.set_target(100, "")

    assert reply == TargetReply(Answer.ACCEPTED, "", 100)
    assert keeper.gate.num_pages == 100
    assert keeper.scripted.seen == [TargetRequested(100)]
    assert keeper.answered == [reply]
    assert keeper.announcements >= 1


def test_an_accepted_target_says_how_it_was_changed():
    keeper = Keeper(follow)

    reply = keeper.set_target(100, "clamped")

    assert reply == TargetReply(Answer.ACCEPTED, "clamped", 100)


def test_the_target_that_it_has_already_wakes_a_driver_that_overslept():
    keeper = Keeper(follow)
    keeper.set_target(100, "")
    keeper.forget()

    keeper.set_target(100, "")

    assert keeper.announcements == 1


def test_a_deferred_target_is_kept_with_the_reason_and_not_announced():
    keeper = Keeper(SHUT)

    reply = keeper.set_target(100, "")

    assert reply == TargetReply(Answer.DEFERRED, "wait", 100)
    assert keeper.requested == 100
    assert keeper.answered == [reply]
    assert keeper.announcements == 0


def test_a_deferred_target_says_that_it_was_clamped_as_well():
    keeper = Keeper(SHUT)

    reply = keeper.set_target(100, "the guest has only 100 pages")

    assert "wait" in reply.reason
    assert "only 100 pages" in reply.reason


def test_a_deferred_target_takes_effect_when_the_gate_accepts():
    keeper = Keeper(SHUT)
    keeper.set_target(100, "")
    keeper.scripted.gate = follow

    keeper.observe(TICK)

    assert keeper.gate.num_pages == 100
    assert keeper.announcements == 1


def test_the_newest_of_deferred_targets_counts():
    keeper = Keeper(SHUT)
    keeper.set_target(100, "")
    keeper.set_target(50, "")
    keeper.scripted.gate = follow

    keeper.observe(TICK)

    assert keeper.gate.num_pages == 50


def test_a_deferred_target_is_dropped_when_refused_and_it_is_said():
    keeper = Keeper(SHUT)
    keeper.set_target(100, "")
    keeper.forget()
    keeper.scripted.gate = REFUSING

    keeper.observe(TICK)

    assert keeper.requested == 0
    assert keeper.answered == [TargetReply(Answer.REFUSED, "never", 0)]


def test_a_deferred_target_that_was_dropped_is_not_shown_either():
    keeper = Keeper(SHUT)
    keeper.set_target(300, "")
    keeper.scripted.gate = lambda requested: replace(REFUSING, num_pages=requested)

    keeper.observe(TICK)

    assert keeper.gate.num_pages == 0


def test_without_a_deferred_target_there_is_nothing_to_drop():
    keeper = Keeper(SHUT)
    keeper.scripted.gate = REFUSING

    keeper.observe(TICK)

    assert keeper.answered == []


def test_an_accepted_target_outlives_a_gate_that_then_refuses_others():
    keeper = Keeper(follow)
    keeper.set_target(100, "")
    keeper.scripted.gate = REFUSING

    keeper.observe(TICK)

    assert keeper.requested == 100


def test_a_refused_target_is_forgotten_and_never_shown_to_the_policy():
    keeper = Keeper(REFUSING)

    reply = keeper.set_target(100, "clamped")

    assert reply == TargetReply(Answer.REFUSED, "never", 0)
    assert keeper.requested == 0
    assert keeper.scripted.seen == []
    assert keeper.answered == [reply]
    assert keeper.announcements == 0


def no_more_than_100_but_some(requested):
    """Refuse what is out of bounds, and show the driver whatever is requested."""
    if 1 <= requested <= 100:
        return Gate(requested, reclaim=True, targets=Answer.ACCEPTED)
    return Gate(requested, reclaim=True, targets=Answer.REFUSED, reason="out of bounds")


@pytest.mark.parametrize("refused", [0, 150])
def test_a_target_refused_on_sight_leaves_the_former_one(refused):
    keeper = Keeper()
    keeper.scripted.gate = no_more_than_100_but_some
    keeper.requested = 80
    keeper.observe(TICK)

    reply = keeper.set_target(refused, "")

    assert reply == TargetReply(Answer.REFUSED, "out of bounds", 80)
    assert keeper.requested == 80
    assert keeper.gate.num_pages == 80


def test_after_a_target_refused_on_sight_a_better_one_is_accepted():
    keeper = Keeper()
    keeper.scripted.gate = no_more_than_100_but_some
    keeper.requested = 80
    keeper.observe(TICK)
    keeper.set_target(150, "")

    reply = keeper.set_target(90, "")

    assert reply == TargetReply(Answer.ACCEPTED, "", 90)


def test_a_deferred_target_is_dropped_with_the_one_that_was_refused_on_sight():
    keeper = Keeper(SHUT)
    keeper.set_target(100, "")
    keeper.scripted.after[TargetRequested] = REFUSING

    reply = keeper.set_target(200, "")

    assert reply == TargetReply(Answer.REFUSED, "never", 0)
    assert keeper.requested == 0


@pytest.mark.parametrize("refused", [0, 50, 200])
def test_a_policy_that_fails_on_a_target_leaves_the_former_one(refused):
    keeper = Keeper(follow)
    keeper.set_target(100, "")
    keeper.scripted.raises["policy_observe"] = RuntimeError("boom")

    reply = keeper.set_target(refused, "")

    assert reply.answer is Answer.REFUSED
    assert "boom" in reply.reason
    assert reply.requested == keeper.requested == 100
    assert keeper.gate.num_pages == 100


# --- reset --------------------------------------------------------------------------


def test_a_reset_tells_the_policy_and_keeps_the_users_target():
    keeper = Keeper(follow)
    keeper.set_target(100, "")
    keeper.forget()

    keeper.reset()

    assert keeper.scripted.seen == [DeviceReset()]
    assert keeper.requested == 100
    assert keeper.recorder.events == [DeviceReset()]


def test_a_reset_takes_the_gate_of_the_new_session():
    keeper = Keeper(OPEN)
    keeper.scripted.after[DeviceReset] = SHUT

    keeper.reset()

    assert keeper.gate == SHUT


# --- a policy that fails ------------------------------------------------------------


def test_a_failure_is_told_once_in_a_session():
    keeper = Keeper(OPEN)
    keeper.scripted.raises["policy_gate"] = RuntimeError("boom")

    keeper.observe(TICK)
    keeper.observe(TICK)
    told = keeper.recorder.of(PluginFailed)
    keeper.reset()

    assert [(event.hook, event.error) for event in told] == [
        ("policy_gate", "RuntimeError: boom")
    ]
    assert len(keeper.recorder.of(PluginFailed)) == 2


@pytest.mark.parametrize(
    "hook",
    ["policy_features", "policy_observe", "policy_gate", "policy_verdict"],
)
def test_a_failing_policy_shuts_the_gate_with_the_event_that_made_it_fail(hook):
    keeper = Keeper(OPEN)
    keeper.scripted.raises[hook] = RuntimeError("boom")

    keeper.features()
    keeper.observe(PagesInflated((1,)))

    assert not keeper.gate.reclaim
    assert keeper.gate.targets is Answer.REFUSED
    assert "boom" in keeper.gate.reason
    assert keeper.recorder.of(PluginFailed)[0].hook == hook


def test_a_failed_policy_shows_the_driver_what_it_showed_last():
    keeper = Keeper(Gate(300, reclaim=True, targets=Answer.ACCEPTED))
    keeper.scripted.raises["policy_observe"] = RuntimeError("boom")

    keeper.observe(TICK)

    assert keeper.gate.num_pages == 300


def test_a_policy_that_fails_again_shows_the_next_driver_nothing_of_the_last():
    keeper = Keeper(Gate(300, reclaim=True, targets=Answer.ACCEPTED))
    keeper.scripted.raises["policy_observe"] = RuntimeError("boom")
    keeper.observe(TICK)

    keeper.reset()

    assert keeper.gate.num_pages == 0


def test_a_reset_gives_a_failed_policy_another_chance():
    keeper = Keeper(OPEN)
    keeper.scripted.raises["policy_gate"] = RuntimeError("boom")
    keeper.observe(TICK)
    del keeper.scripted.raises["policy_gate"]

    keeper.observe(TICK)
    before = keeper.gate
    keeper.reset()

    assert before.targets is Answer.REFUSED
    assert keeper.gate == OPEN
    assert keeper.verdict == GOOD


# --- save and load ------------------------------------------------------------------


def saved(**changes):
    state = {
        "requested": 50,
        "accepted": True,
        "policy": "scripted",
        "policy_state": {"scripted": 1},
        "advertised": 50,
        "read": 0,
        "translation": asdict(Translation()),
    }
    return state | changes


def test_what_is_saved():
    keeper = Keeper(follow)
    keeper.set_target(50, "")

    assert keeper.save() == saved()


def test_a_known_verdict_is_taken_over():
    keeper = Keeper(SHUT)
    keeper.scripted.gate = follow

    keeper.load(saved(), ballooned=10)

    assert keeper.scripted.loaded == [{"scripted": 1}]
    assert keeper.recorder.of(StateLoaded) == [StateLoaded(True, 10, saved())]
    assert keeper.gate == follow(50)


UNKNOWN = {
    "of another policy": saved(policy="another"),
    "none": saved(policy_state=None),
    "not taken": saved(policy_state={"no": "sense"}),
}


@pytest.mark.parametrize("state", UNKNOWN.values(), ids=UNKNOWN)
def test_a_balloon_without_a_verdict_is_held_as_it_is(state):
    keeper = Keeper(follow)
    keeper.scripted.refuses = [{"no": "sense"}]
    keeper.forget()

    keeper.load(state, ballooned=10)

    assert keeper.gate.num_pages == 50
    assert not keeper.gate.reclaim
    assert keeper.gate.targets is Answer.REFUSED
    assert "without a verdict" in keeper.gate.reason
    assert keeper.recorder.of(StateLoaded) == [StateLoaded(False, 10, state)]
    assert keeper.announcements == 1


def test_a_held_balloon_stays_held_whatever_the_policy_says():
    keeper = Keeper(follow)
    keeper.load(saved(policy_state=None), ballooned=10)

    keeper.observe(ActualWritten(9))
    reply = keeper.set_target(100, "")

    assert keeper.gate.num_pages == 50
    assert reply.answer is Answer.REFUSED
    assert "without a verdict" in reply.reason


def test_a_held_balloon_gets_no_verdict_from_what_was_no_test():
    keeper = Keeper(SHUT)
    keeper.load(saved(policy_state=None), ballooned=1000)
    keeper.scripted.verdict = BUGGY

    keeper.observe(ActualWritten(744))

    assert keeper.verdict.judgement is Judgement.UNDECIDED


def test_over_a_held_balloon_the_policy_learns_of_the_host_alone():
    keeper = Keeper(SHUT)
    keeper.load(saved(policy_state=None), ballooned=10)
    described = GuestDescribed(GuestFacts(ram=()))

    for event in ActualWritten(9), described, DriverReady(), PagesInflated((1,)):
        keeper.observe(event)

    assert keeper.scripted.seen == [described]
    assert len(keeper.recorder.of(ActualWritten, DriverReady, PagesInflated)) == 3


def test_a_held_balloon_is_saved_without_a_verdict():
    keeper = Keeper(SHUT)
    keeper.load(saved(policy_state=None), ballooned=10)

    assert keeper.save()["policy_state"] is None


def test_a_reset_ends_the_hold():
    keeper = Keeper(follow)
    keeper.load(saved(policy_state=None), ballooned=10)

    keeper.reset()

    assert keeper.gate == follow(50)
    assert keeper.save()["policy_state"] is not None


def test_a_driver_that_may_be_on_its_way_to_a_target_is_held_too():
    keeper = Keeper(SHUT)

    keeper.load(saved(policy_state=None, read=33), ballooned=0)

    assert keeper.gate.num_pages == 50
    assert keeper.gate.targets is Answer.REFUSED


def test_what_the_driver_read_last_is_saved_until_the_reset():
    keeper = Keeper(SHUT)

    for num_pages in 33, 5:
        keeper.observe(TargetRead(num_pages))

    assert keeper.save()["read"] == 5
    keeper.reset()
    assert keeper.save()["read"] == 0


@pytest.mark.parametrize("state", UNKNOWN.values(), ids=UNKNOWN)
def test_an_empty_balloon_without_a_verdict_is_simply_new(state):
    keeper = Keeper(SHUT)
    keeper.scripted.refuses = [{"no": "sense"}]
    keeper.forget()

    keeper.load(state, ballooned=0)

    assert keeper.gate == SHUT
    assert keeper.requested == 50
    assert keeper.recorder.of(StateLoaded) == [StateLoaded(False, 0, state)]


def test_an_answer_says_what_was_asked_for():
    keeper = Keeper(SHUT)
    keeper.forget()

    keeper.set_target(70, "")
    keeper.scripted.gate = REFUSING
    keeper.observe(DriverReady())
    keeper.set_target(80, "")

    asked = [event.asked for event in keeper.recorder.of(TargetAnswered)]
    assert asked == [70, None, 80]
