"""Shadows: the same gate as with the power, and what their conclusions are worth."""

from __future__ import annotations

import pytest
from examples import times
from fakes import OPEN, REFUSING, SHUT, FakeHost, Recorder, ScriptedPolicy
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin import change_policy, make_device
from balloon_plugin.calls import PolicyCalls
from balloon_plugin.errors import PluginError
from balloon_plugin.events import (
    ActualWritten,
    Answer,
    DeviceReset,
    DriverReady,
    FeaturesAcked,
    Gate,
    GateChanged,
    GuestDescribed,
    GuestFacts,
    MemoryRange,
    PagesInflated,
    PluginFailed,
    PolicyChanged,
    ShadowDiverged,
    ShadowGuesses,
    StateLoaded,
    TargetRead,
    TargetRequested,
    TimePassed,
    Translation,
)
from balloon_plugin.policies.evidence import EvidencePolicy
from balloon_plugin.policies.feature_bit import FeatureBitPolicy
from balloon_plugin.policies.none import NonePolicy
from balloon_plugin.policies.probe import ProbePolicy
from balloon_plugin.shadow import Shadow, is_policy_event

FACTS = GuestDescribed(GuestFacts((MemoryRange(0, 1 << 26),)))
BUILT_IN = [NonePolicy, ProbePolicy, FeatureBitPolicy, EvidencePolicy]


def showing(num_pages, **more):
    """A gate that shows a target and leaves all else shut."""
    return Gate(num_pages, reclaim=False, targets=Answer.DEFERRED, **more)


class Watched:
    """A shadow, and what it tells."""

    def __init__(self, policy, offered=0):
        self.told = []
        self.shadow = Shadow(policy, offered=lambda: offered, tell=self.told.append)

    def see(self, *events):
        for event in events:
            self.shadow.balloon_event(event)
        self.shadow.settle()
        return self.shadow.status()


def beside(live, shadow, drive):
    """Drive a device under a policy, a shadow beside it; return both."""
    told = []
    device = make_device(live)
    offered = PolicyCalls(device.plugins, "live").features
    onlooker = Shadow(shadow, offered=offered, tell=told.append)
    device.plugins.register(onlooker)
    device.realize(FakeHost(ram=((0, 64),)))
    drive(device)
    onlooker.settle()
    return device, onlooker.status(), told


# --- the same policy ----------------------------------------------------------------


def calls():
    """What hosts and drivers may do, in any order."""
    sizes = st.integers(0, 5000)
    number = sizes.map(lambda size: size.to_bytes(4, "little"))
    return st.one_of(
        st.tuples(st.just("get_config"), st.just(0), st.just(4)),
        st.tuples(st.just("set_config"), st.just(4), number),
        st.tuples(st.just("set_features"), st.sampled_from([0, 1 << 28, 1 << 32])),
        st.tuples(st.just("set_target"), sizes),
        st.sampled_from([("driver_ready",), ("reset",), ("tick",)]),
    )


@pytest.mark.parametrize("make", BUILT_IN, ids=lambda kind: kind.__name__)
@times(0.5)
@given(st.lists(calls(), max_size=25))
def test_the_same_policy_is_never_of_another_mind(make, script):
    def drive(device):
        for name, *arguments in script:
            getattr(device, name)(*arguments)

    device, status, told = beside(make(), make(), drive)

    assert told == []
    assert status.gate == device.query().gate
    assert status.verdict == device.query().verdict
    assert status.divergences == 0


@pytest.mark.parametrize("make", BUILT_IN, ids=lambda kind: kind.__name__)
def test_a_session_that_is_restored_is_restored_for_it_too(make):
    state = {}

    def drive(device):
        device.set_features(1 << 28)
        device.set_config(4, bytes([16, 0, 0, 0]))
        state.update(device.save())

    beside(make(), make(), drive)

    device, status, told = beside(make(), make(), lambda device: device.load(state))

    assert (status.gate, told) == (device.query().gate, [])


def test_of_another_policys_session_a_shadow_has_no_verdict():
    state = {}

    def drive(device):
        device.set_config(4, bytes([16, 0, 0, 0]))
        state.update(device.save())

    beside("none", "none", drive)

    _, status, _ = beside("none", "probe", lambda device: device.load(state))

    assert status.verdict.state == "RESTORED"


def test_where_nobody_tells_what_was_loaded_it_guesses():
    watched = Watched(ScriptedPolicy(showing(0)))

    status = watched.see(FACTS, StateLoaded(verdict_known=True))

    assert status.guesses.why == "what was loaded is not told"


# --- divergences --------------------------------------------------------------------


def test_where_its_gate_is_another_it_diverges():
    watched = Watched(ScriptedPolicy(showing(0)))

    status = watched.see(FACTS, GateChanged(OPEN), TimePassed(1.0), TimePassed(2.0))

    assert watched.told == [ShadowDiverged("ScriptedPolicy", 1, showing(0), OPEN)]
    assert status.diverged == watched.told[0]
    assert (status.divergences, status.events, status.guesses) == (1, 3, None)


def test_the_gates_are_compared_when_both_stand():
    """The live gate follows the event, which observers see before the policy."""
    policy = ScriptedPolicy(showing(0))
    policy.after = {DriverReady: OPEN}
    watched = Watched(policy)

    watched.see(FACTS, GateChanged(showing(0)), DriverReady(), GateChanged(OPEN))

    assert watched.told == []


def test_another_difference_is_another_divergence():
    watched = Watched(ScriptedPolicy(showing(0)))
    other = Gate(0, reclaim=True, targets=Answer.DEFERRED)

    watched.see(FACTS, GateChanged(OPEN), DriverReady(), GateChanged(other))
    watched.see(TimePassed(1.0), GateChanged(showing(0)), TimePassed(2.0))
    status = watched.see(TimePassed(3.0), GateChanged(OPEN))

    assert [event.at for event in watched.told] == [1, 2, 5]
    assert status.divergences == 3
    assert status.diverged.at == 1


@pytest.mark.parametrize(
    "live",
    [
        showing(7),
        Gate(0, reclaim=True, targets=Answer.DEFERRED),
        Gate(0, reclaim=False, targets=Answer.REFUSED),
        showing(0, translation=Translation(swap_pfns=True)),
    ],
)
def test_each_power_counts(live):
    assert Watched(ScriptedPolicy(showing(0))).see(FACTS, GateChanged(live)).diverged


@pytest.mark.parametrize("live", [showing(0, reason="other words"), showing(0)])
def test_words_do_not_count(live):
    status = Watched(ScriptedPolicy(showing(0))).see(FACTS, GateChanged(live))

    assert status.diverged is None


def test_what_the_device_tells_of_itself_is_no_event_of_a_policy():
    assert is_policy_event(FACTS)
    assert not is_policy_event(GateChanged(SHUT))


# --- facts and guesses --------------------------------------------------------------


def test_a_policy_that_only_looks_on_concludes_facts():
    driver = (FeaturesAcked(1 << 28), TargetRead(33), PagesInflated((1,) * 33))

    status = Watched("none").see(FACTS, GateChanged(showing(33)), *driver)

    assert status.diverged is not None
    assert status.guesses is None
    assert status.verdict.state == "BELIEVED"


def test_a_test_that_the_driver_never_saw_is_a_guess():
    watched = Watched("probe")

    before = watched.see(FACTS, GateChanged(showing(33)), DriverReady())
    status = watched.see(TargetRead(33), ActualWritten(33))

    assert before.guesses is None, "nobody has looked yet"
    why = "the driver is shown 33, and never sees the 16 of this policy"
    assert status.guesses == ShadowGuesses("probe", 3, why)
    assert watched.told[-1] == status.guesses
    assert status.verdict.state == "BUGGY", "wrongly, and it says so"


def test_as_long_as_the_driver_sees_the_same_it_is_a_fact():
    status = Watched("probe").see(
        FACTS, GateChanged(showing(16)), TargetRead(16), ActualWritten(16)
    )

    assert status.guesses.at == 3, "now it would be told to deflate"
    assert status.verdict.state == "CLEANUP"


def test_a_guess_ends_with_the_driver():
    watched = Watched("probe")
    watched.see(FACTS, GateChanged(showing(33)), TargetRead(33))

    status = watched.see(DeviceReset())

    assert status.guesses is None
    assert status.diverged.at == 3
    assert status.verdict.state == "TESTING"


def test_after_a_guess_there_is_nothing_to_compare():
    watched = Watched("probe")

    watched.see(FACTS, GateChanged(showing(33)), TargetRead(33), DriverReady())
    watched.see(ActualWritten(33), GateChanged(OPEN), TimePassed(1.0))

    assert [type(event) for event in watched.told] == [ShadowDiverged, ShadowGuesses]


def test_an_offer_that_was_not_made_is_a_guess():
    status = Watched("feature-bit").see(FACTS, FeaturesAcked(1 << 28))

    assert status.guesses.why == "the driver was never offered the features 0x400000"


def test_an_offer_of_the_live_policy_alone_is_a_guess_if_it_was_accepted():
    kept = Watched("probe", offered=1 << 22).see(FACTS, FeaturesAcked(1 << 28))
    accepted = Watched("probe", offered=1 << 22).see(FACTS, FeaturesAcked(1 << 22))

    assert kept.guesses is None
    assert accepted.guesses.why.startswith("the driver accepted 0x400000, not of this")


def test_of_a_policy_that_came_later_its_own_offer_counts():
    live = PolicyChanged("feature-bit", held=False, offers=1 << 22)

    status = Watched("feature-bit").see(FACTS, live, FeaturesAcked(1 << 22))

    assert status.guesses is None


def test_a_change_of_the_live_policy_tells_what_it_offers():
    witness = Recorder()
    device = make_device("none", observers=[witness])
    device.realize(FakeHost())

    change_policy(device, "feature-bit")

    (changed,) = witness.of(PolicyChanged)
    assert changed.offers == 1 << 22


# --- targets ------------------------------------------------------------------------


def test_a_target_that_the_live_policy_refuses_is_the_shadows_too():
    device, status, _ = beside(
        ScriptedPolicy(REFUSING), "none", lambda device: device.set_target(50)
    )

    assert device.query().requested == 0
    assert status.gate.num_pages == 50


def test_one_that_the_shadow_refuses_is_not():
    policy = ScriptedPolicy(REFUSING)
    _, status, _ = beside("none", policy, lambda device: device.set_target(50))

    assert policy.requests[-1] == 0
    assert status.gate == REFUSING


def test_so_is_one_that_is_refused_after_another_was_accepted():
    live = ScriptedPolicy(OPEN)

    def drive(device):
        device.set_target(5)
        live.gate = REFUSING
        device.tick()
        device.set_target(50)

    _, status, _ = beside(live, "none", drive)

    assert status.gate.num_pages == 50


def test_a_target_is_clamped_to_the_ram_that_is_known_by_then():
    less = GuestDescribed(GuestFacts((MemoryRange(0, 16 * 4096),)))

    status = Watched("none").see(FACTS, TargetRequested(5000), less)

    assert status.gate.num_pages == 16


def test_a_target_above_the_ram_that_is_known_is_shown_clamped():
    def drive(device):
        device.set_target(1 << 20)

    device, status, _ = beside("none", "none", drive)

    assert status.gate.num_pages == device.query().ram


# --- what fails ---------------------------------------------------------------------


def test_a_policy_that_raises_is_shut_until_the_reset_and_nobody_else_notices():
    policy = ScriptedPolicy(OPEN)
    policy.raises["policy_observe"] = KeyError("oh")

    device, status, told = beside("none", policy, lambda device: device.set_target(5))

    assert device.query().gate.targets is Answer.ACCEPTED
    assert status.gate.targets is Answer.REFUSED
    (failure,) = [event for event in told if isinstance(event, PluginFailed)]
    assert failure.plugin == "shadow ScriptedPolicy"
    assert failure.error == "KeyError: 'oh'"


def test_a_policy_that_does_not_exist_is_refused():
    with pytest.raises(PluginError, match="did you mean probe"):
        Shadow("prob")


# --- inhibition ---------------------------------------------------------------------


def inhibited_for_a_while(device):
    device.set_target(50)
    device.set_inhibited("it is being migrated")
    device.get_config(0, 4)
    device.tick()
    device.set_inhibited(None)
    device.tick()


def test_while_discards_are_inhibited_nothing_is_compared():
    """The live target follows the balloon meanwhile, of which no event tells."""
    device, status, told = beside("none", "none", inhibited_for_a_while)

    assert told == []
    assert status.gate == device.query().gate
    assert status.gate.num_pages == 50


def test_afterwards_it_is():
    _, status, told = beside("none", "probe", inhibited_for_a_while)

    assert isinstance(told[-1], ShadowGuesses)
    assert status.guesses.at > 2, "the driver read its target meanwhile"
