"""Another policy while the device runs: what it is shown, and what it may do."""

from __future__ import annotations

import json

import pytest
from fakes import GOOD, OPEN, SHUT, ScriptedPolicy, follow, rig

from balloon_plugin import change_policy, hookimpl
from balloon_plugin.errors import HostError, PluginError
from balloon_plugin.events import (
    Answer,
    DriverReady,
    FeaturesAcked,
    Gate,
    GuestDescribed,
    Judgement,
    PluginFailed,
    PolicyChanged,
    QueueSeen,
    TargetRead,
    TargetRequested,
    TimePassed,
    Translation,
    Verdict,
)
from balloon_plugin.guests import Guest, find
from balloon_plugin.hosts.simulated import SimulatedHost
from balloon_plugin.manager import make_device

VERSION_1 = 1 << 32
UNDECIDED = Verdict(Judgement.UNDECIDED, "TESTING")
TESTING = Gate(16, reclaim=False, targets=Answer.DEFERRED, reason="wait")


def undecided(gate=TESTING):
    """Return a policy that would test a driver."""
    policy = ScriptedPolicy(gate)
    policy.verdict = UNDECIDED
    return policy


def in_use(gate=follow):
    """Return a device with three pages in the balloon, given back to the host."""
    made = rig(ScriptedPolicy(gate))
    made.device.set_features(VERSION_1)
    made.device.driver_ready()
    made.device.set_target(3)
    made.target()
    made.inflate(1, 2, 3)
    made.write_actual(3)
    made.forget()
    return made


# --- what it is shown ---------------------------------------------------------------


def test_before_a_driver_it_begins_like_the_first():
    made = rig()
    new = undecided()

    change_policy(made.device, new, name="new")

    assert new.seen == [GuestDescribed(made.host.facts)]
    status = made.device.query()
    assert (status.policy, status.verdict, status.gate) == ("new", UNDECIDED, TESTING)


def test_it_is_shown_what_is_still_true():
    made = in_use()
    new = undecided()

    change_policy(made.device, new)

    assert new.seen == [
        GuestDescribed(made.host.facts),
        FeaturesAcked(VERSION_1),
        DriverReady(),
        QueueSeen(0, made.host.queues[0].desc),
        QueueSeen(1, made.host.queues[1].desc),
        TargetRead(3),
        TargetRequested(3),
    ]


def test_it_is_a_fact_for_observers():
    made = in_use()

    change_policy(made.device, undecided(), name="one")
    change_policy(made.device, ScriptedPolicy(follow), name="other")

    assert made.recorder.of(PolicyChanged) == [
        PolicyChanged("one", held=True),
        PolicyChanged("other", held=False),
    ]


def test_the_old_policy_sees_nothing_more():
    made = in_use()
    old = made.policy
    seen = len(old.seen)

    change_policy(made.device, ScriptedPolicy(follow))
    made.inflate(4)

    assert len(old.seen) == seen


# --- a balloon at rest --------------------------------------------------------------


def emptied():
    """Return a device whose balloon was in use, and is empty again."""
    made = in_use()
    made.device.set_target(0)
    made.target()
    made.deflate(1, 2, 3)
    made.write_actual(0)
    made.forget()
    return made


def test_at_rest_it_tests_the_driver():
    made = emptied()

    change_policy(made.device, undecided())

    assert made.target() == 16
    assert ("config",) in made.log
    made.write_actual(16)
    assert made.device.query().balloon_pages == 0


def test_at_rest_a_target_that_waits_is_kept():
    made = rig(ScriptedPolicy(SHUT))
    made.device.set_target(7)

    change_policy(made.device, ScriptedPolicy(follow))

    assert made.target() == 7


def test_a_driver_that_knows_of_a_target_is_not_at_rest():
    made = emptied()
    made.device.set_target(5)
    made.target()

    change_policy(made.device, undecided())

    assert made.device.query().verdict.state == "NOT_SEEN"


def restored(made, **changes):
    """Return another device that goes on with the driver of one."""
    state = json.loads(json.dumps(made.device.save()))
    other = rig(ScriptedPolicy(follow))
    other.device.load(state | {"policy": state["policy"] | changes})
    return other


def test_a_restored_driver_may_be_at_rest():
    made = restored(emptied())

    change_policy(made.device, undecided())

    assert made.device.query().verdict == UNDECIDED


@pytest.mark.parametrize("read", [5, None], ids=["a target", "nobody knows"])
def test_a_restored_driver_may_know_of_a_target(read):
    made = restored(emptied(), read=read)

    change_policy(made.device, undecided())

    assert made.device.query().verdict.state == "NOT_SEEN"


# --- a balloon in use ---------------------------------------------------------------


def test_in_use_the_driver_is_shown_the_same_target():
    made = in_use()

    change_policy(made.device, undecided(), name="new")

    assert made.target() == 3
    status = made.device.query()
    assert (status.reclaimed, status.verdict.judgement) == (3, Judgement.UNDECIDED)
    (evidence,) = status.verdict.evidence
    assert evidence.shows.startswith("The policy new came while the balloon was in use")


def test_in_use_nothing_is_reclaimed_and_targets_are_refused():
    made = in_use()
    change_policy(made.device, undecided())

    made.inflate(8)
    reply = made.device.set_target(9)

    assert made.device.query().reclaimed == 3
    assert (reply.answer, reply.requested) == (Answer.REFUSED, 3)
    assert "until the driver is reset" in reply.reason


def test_in_use_it_does_not_judge_what_was_no_test():
    made = in_use()
    new = undecided()
    change_policy(made.device, new)
    seen = len(new.seen)

    made.write_actual(3)
    made.deflate(1)

    assert len(new.seen) == seen
    assert made.device.query().reclaimed == 2


def test_after_a_reset_it_judges():
    made = in_use()
    change_policy(made.device, undecided())

    made.device.reset()

    status = made.device.query()
    assert (status.verdict, status.gate, status.requested) == (UNDECIDED, TESTING, 3)


@pytest.mark.parametrize("judgement", [Judgement.GOOD, Judgement.BUGGY])
def test_with_a_verdict_of_its_own_it_takes_over(judgement):
    made = in_use()
    new = ScriptedPolicy(OPEN)
    new.verdict = Verdict(judgement, "KNOWN")

    change_policy(made.device, new)

    status = made.device.query()
    assert (status.gate, status.verdict.state) == (OPEN, "KNOWN")
    assert (status.balloon_pages, status.reclaimed) == (3, 3)


def test_one_that_reads_the_numbers_otherwise_does_not_take_over():
    made = in_use()
    swapped = Gate(
        3,
        reclaim=True,
        targets=Answer.ACCEPTED,
        translation=Translation(swap_pfns=True),
    )

    change_policy(made.device, ScriptedPolicy(swapped))

    status = made.device.query()
    assert status.verdict.state == "NOT_SEEN"
    assert status.gate.translation == Translation()


@pytest.mark.parametrize("hook", ["policy_observe", "policy_gate"])
def test_one_that_fails_leaves_the_driver_its_target(hook):
    made = in_use()
    failing = ScriptedPolicy(follow)
    failing.raises[hook] = RuntimeError("boom")

    change_policy(made.device, failing)

    assert made.target() == 3
    assert not made.device.query().gate.reclaim


def test_after_one_that_failed_another_is_believed():
    made = in_use()
    made.policy.raises["policy_observe"] = RuntimeError("boom")
    made.write_actual(3)
    assert not made.device.query().gate.reclaim

    change_policy(made.device, ScriptedPolicy(follow))

    assert made.device.query().verdict == GOOD
    assert made.device.set_target(9).answer is Answer.ACCEPTED


def test_each_that_fails_is_told_of():
    made = in_use()
    made.policy.raises["policy_observe"] = RuntimeError("boom")
    made.write_actual(3)
    failing = ScriptedPolicy(follow)
    failing.raises["policy_observe"] = RuntimeError("bang")

    change_policy(made.device, failing, name="new")

    told = made.recorder.of(PluginFailed)
    assert [failure.plugin for failure in told] == ["ScriptedPolicy", "new"]


def test_a_balloon_that_is_held_is_saved_without_a_verdict():
    made = in_use()
    change_policy(made.device, undecided(), name="new")

    state = made.device.save()["policy"]

    assert (state["policy"], state["policy_state"]) == ("new", None)


# --- what is refused ----------------------------------------------------------------


class Incomplete:
    @hookimpl
    def policy_gate(self, requested):
        return follow(requested)


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("proobe", "there is no policy 'proobe'; did you mean probe?"),
        ("probe:pages=x", "the option pages takes a whole number"),
        (Incomplete(), "Incomplete is not a policy: it must implement policy_observe"),
    ],
)
def test_a_policy_that_cannot_be_had_changes_nothing(policy, sentence):
    made = in_use()
    before = made.device.query()

    with pytest.raises(PluginError, match=sentence):
        change_policy(made.device, policy)

    made.write_actual(3)
    assert made.device.query() == before
    assert made.recorder.of(PolicyChanged) == []


def test_an_observer_that_cannot_be_the_policy_as_well_stays_an_observer():
    class Both(ScriptedPolicy):
        told = None

        @hookimpl
        def balloon_event(self, event):
            self.told = event

    both = Both(follow)
    made = in_use()
    made.device.plugins.register(both)

    with pytest.raises(PluginError, match="already registered"):
        change_policy(made.device, both)
    made.device.tick()

    assert both.told == TimePassed(0)


def test_a_policy_whose_hooks_do_not_fit_changes_nothing():
    class Misfit(ScriptedPolicy):
        @hookimpl
        def policy_gate(self, wanted):
            return follow(wanted)

    made = in_use()
    before = made.device.query()

    with pytest.raises(PluginError, match="a plugin does not fit its hooks"):
        change_policy(made.device, Misfit())

    assert made.device.query() == before


def test_bits_that_the_driver_was_never_offered_are_no_ground_to_judge_it():
    made = in_use()
    before = made.device.query()

    with pytest.raises(HostError, match=r"never offered .0x400000.: change the policy"):
        change_policy(made.device, "feature-bit")

    assert made.device.query() == before
    made.device.reset()
    change_policy(made.device, "feature-bit")
    assert made.device.get_features() >> 22 & 1


def test_a_device_without_a_host_has_no_policy_to_change():
    made = rig()
    made.device.unrealize()

    with pytest.raises(HostError, match="the device has no host"):
        change_policy(made.device, "none")
    with pytest.raises(HostError, match="the device has no host"):
        made.device.set_policy("none")


# --- a driver that goes on ----------------------------------------------------------


@pytest.mark.parametrize("old", ["none", "probe", "evidence"])
@pytest.mark.parametrize("new", ["none", "probe", "evidence"])
def test_a_good_driver_at_rest_is_found_good_by_each_after_each(old, new):
    device = make_device(old)
    host = SimulatedHost(device)
    guest = Guest(find("linux-6.12-le-4k"), host)
    guest.run()
    device.set_target(1024)
    guest.run()
    device.set_target(0)
    guest.run()

    change_policy(device, new)
    guest.run()
    device.set_target(512)
    guest.run()

    status = device.query()
    assert (status.policy, status.verdict.judgement) == (new, Judgement.GOOD)
    assert (status.actual, status.reclaimed) == (512, 512)
    host.close()
