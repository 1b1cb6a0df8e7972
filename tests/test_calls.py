"""The typed calls: what a host holds, and where a failing plugin is cut off."""

from __future__ import annotations

import dataclasses
import inspect

import pluggy
import pytest
from fakes import GOOD, OPEN, SHUT, FakeHost, Recorder, ScriptedPolicy, calls

from balloon_plugin import hookspecs
from balloon_plugin.calls import Device, ObserverCalls
from balloon_plugin.errors import PluginError
from balloon_plugin.events import (
    Answer,
    DriverReady,
    Gate,
    Judgement,
    PluginFailed,
    TargetReply,
    Verdict,
)
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.manager import make_device
from balloon_plugin.status import Status

READY = DriverReady()
REPLY = TargetReply(Answer.ACCEPTED, "", 1)
STATUS = Status(
    *("policy", 0, 0, 0, False, 0, 0, 0, None, False, 0, "", False),
    gate=SHUT,
    verdict=GOOD,
)


class SpeechlessError(Exception):
    """An error that cannot even say what it is."""

    def __str__(self):
        raise RuntimeError("no words")


class Shapeless:
    """A value that cannot be shown."""

    def __repr__(self):
        raise RuntimeError("no shape")


def manager(*plugins):
    made = pluggy.PluginManager(hookspecs.PROJECT)
    made.add_hookspecs(hookspecs)
    for plugin in plugins:
        made.register(plugin)
    return made


def a_device(*plugins):
    made = manager(*plugins)
    return Device(made, ObserverCalls(made))


# --- the device, as a host sees it --------------------------------------------------


class Stub:
    """A device plugin that answers as the test says, and notes what it was asked."""

    def __init__(self, answer=None):
        self.answer = answer
        self.asked = []

    def _note(self, **arguments):
        self.asked.append(arguments)
        return self.answer

    @hookimpl
    def realize(self, host):
        return self._note(hook="realize", host=host)

    @hookimpl
    def unrealize(self):
        return self._note(hook="unrealize")

    @hookimpl
    def reset(self):
        return self._note(hook="reset")

    @hookimpl
    def get_features(self):
        return self._note(hook="get_features")

    @hookimpl
    def set_features(self, features):
        return self._note(hook="set_features", features=features)

    @hookimpl
    def driver_ready(self):
        return self._note(hook="driver_ready")

    @hookimpl
    def get_config(self, offset, size):
        return self._note(hook="get_config", offset=offset, size=size)

    @hookimpl
    def set_config(self, offset, data):
        return self._note(hook="set_config", offset=offset, data=data)

    @hookimpl
    def queue_notify(self, index):
        return self._note(hook="queue_notify", index=index)

    @hookimpl
    def set_target(self, num_pages):
        return self._note(hook="set_target", num_pages=num_pages)

    @hookimpl
    def query(self):
        return self._note(hook="query")

    @hookimpl
    def set_stats_interval(self, seconds):
        return self._note(hook="set_stats_interval", seconds=seconds)

    @hookimpl
    def set_inhibited(self, reason):
        return self._note(hook="set_inhibited", reason=reason)

    @hookimpl
    def start_hinting(self):
        return self._note(hook="start_hinting")

    @hookimpl
    def stop_hinting(self):
        return self._note(hook="stop_hinting")

    @hookimpl
    def tick(self):
        return self._note(hook="tick")

    @hookimpl
    def guest_changed(self):
        return self._note(hook="guest_changed")

    @hookimpl
    def save(self):
        return self._note(hook="save")

    @hookimpl
    def load(self, state):
        return self._note(hook="load", state=state)


TELLING = {
    "realize": {"host": FakeHost()},
    "unrealize": {},
    "reset": {},
    "set_features": {"features": 5},
    "driver_ready": {},
    "set_config": {"offset": 4, "data": b"\x10"},
    "set_stats_interval": {"seconds": 2},
    "set_inhibited": {"reason": "pinned"},
    "stop_hinting": {},
    "tick": {},
    "guest_changed": {},
    "load": {"state": {"version": 1}},
}
ASKING = {
    "get_features": ({}, 4),
    "get_config": ({"offset": 2, "size": 3}, b"abc"),
    "queue_notify": ({"index": 1}, True),
    "set_target": ({"num_pages": 7}, REPLY),
    "query": ({}, STATUS),
    "start_hinting": ({}, 3),
    "save": ({}, {"version": 1}),
}


@pytest.mark.parametrize("hook", TELLING)
def test_what_a_host_tells_reaches_the_device(hook):
    stub = Stub()
    device = a_device(stub)

    answer = getattr(device, hook)(*TELLING[hook].values())

    assert answer is None
    assert stub.asked == [{"hook": hook} | TELLING[hook]]


@pytest.mark.parametrize("hook", ASKING)
def test_what_a_host_asks_is_answered_by_the_device(hook):
    arguments, answer = ASKING[hook]
    stub = Stub(answer)
    device = a_device(stub)

    returned = getattr(device, hook)(*arguments.values())

    assert returned is answer
    assert stub.asked == [{"hook": hook} | arguments]


@pytest.mark.parametrize("hook", ASKING)
@pytest.mark.parametrize("plugins", [[], [Stub("nonsense")]], ids=["none", "nonsense"])
def test_an_answer_that_is_none_is_a_plugins_mistake(hook, plugins):
    arguments, answer = ASKING[hook]
    device = a_device(*plugins)

    with pytest.raises(PluginError, match=type(answer).__name__) as error:
        getattr(device, hook)(*arguments.values())

    assert "register" in str(error.value)


def test_all_device_hooks_are_tried_here():
    hooks = {name for name, _ in inspect.getmembers(Stub, inspect.isfunction)}

    assert set(TELLING) | set(ASKING) == {
        name for name in hooks if not name.startswith("_")
    }


# --- the policy, as the device sees it ----------------------------------------------

POLICY_CALLS = {
    "policy_features": lambda policy: policy.features(),
    "policy_observe": lambda policy: policy.observe(READY),
    "policy_gate": lambda policy: policy.gate(1),
    "policy_verdict": lambda policy: policy.verdict(),
    "policy_save": lambda policy: policy.save(),
}


def test_a_policy_is_asked_and_believed():
    scripted = ScriptedPolicy(OPEN)
    scripted.features = 1 << 22
    policy, _ = calls(scripted)

    policy.observe(READY)

    assert scripted.seen == [READY]
    assert policy.gate(5) == OPEN
    assert scripted.requests == [5]
    assert policy.verdict() == GOOD
    assert policy.features() == 1 << 22
    assert policy.save() == {"scripted": 1}
    assert policy.load({"a": 1})
    assert scripted.loaded == [{"a": 1}]
    assert policy.failure is None


@pytest.mark.parametrize("hook", POLICY_CALLS)
def test_a_policy_that_raises_is_blamed_by_name_hook_and_error(hook):
    scripted = ScriptedPolicy(OPEN)
    scripted.raises[hook] = LookupError("boom")
    policy, _ = calls(scripted)

    POLICY_CALLS[hook](policy)

    assert policy.failure == PluginFailed("scripted", hook, "LookupError: boom")


@pytest.mark.parametrize("hook", POLICY_CALLS)
def test_a_policy_that_raised_has_no_say_any_more(hook):
    scripted = ScriptedPolicy(OPEN)
    policy, _ = calls(scripted)
    policy.gate(1)
    scripted.raises[hook] = LookupError("boom")
    POLICY_CALLS[hook](policy)
    scripted.raises.clear()
    scripted.seen.clear()

    policy.observe(READY)
    gate = policy.gate(1)

    assert scripted.seen == []
    assert gate == dataclasses.replace(
        OPEN, reclaim=False, targets=Answer.REFUSED, reason=gate.reason
    )
    assert "scripted" in gate.reason
    assert "boom" in gate.reason
    assert "until the driver is reset" in gate.reason
    assert policy.verdict().judgement is Judgement.UNDECIDED
    assert policy.save() is None


def test_the_first_failure_is_the_one_that_is_told():
    scripted = ScriptedPolicy()
    scripted.raises["policy_verdict"] = LookupError("first")
    scripted.raises["policy_features"] = LookupError("second")
    policy, _ = calls(scripted)
    policy.verdict()

    bits = policy.features()

    assert bits == 0
    assert policy.failure.hook == "policy_verdict"


def test_a_policy_that_fails_before_its_first_gate_shows_nothing():
    scripted = ScriptedPolicy(OPEN)
    scripted.raises["policy_observe"] = LookupError("boom")
    policy, _ = calls(scripted)
    policy.observe(READY)

    gate = policy.gate(500)

    assert gate.num_pages == 0
    assert not gate.reclaim
    assert gate.targets is Answer.REFUSED


NO_GATES = [None, True, "open", (1000, True, Answer.ACCEPTED)]
NO_FIELDS = [
    ("num_pages", -1),
    ("num_pages", 2**32),
    ("num_pages", 1.5),
    ("num_pages", "16"),
    ("num_pages", None),
    ("reclaim", "no"),
    ("reclaim", None),
    ("targets", "refused"),
    ("targets", None),
    ("reason", None),
    ("reason", 5),
    ("nudges", "one"),
    ("translation", None),
    ("translation", (True, 1, 1, False, 1)),
]


def assert_shut(policy, gate):
    """The target stays as it was shown before, and that is all."""
    assert (gate.num_pages, gate.reclaim) == (SHUT.num_pages, False)
    assert gate.targets is Answer.REFUSED
    assert policy.failure.hook == "policy_gate"


@pytest.mark.parametrize("nonsense", NO_GATES, ids=repr)
def test_a_gate_that_is_none_is_a_failure(nonsense):
    scripted = ScriptedPolicy(SHUT)
    policy, _ = calls(scripted)
    policy.gate(1)
    scripted.answers["policy_gate"] = nonsense

    gate = policy.gate(1)

    assert_shut(policy, gate)


@pytest.mark.parametrize(("field", "nonsense"), NO_FIELDS)
def test_a_gate_with_a_field_that_is_none_is_a_failure(field, nonsense):
    scripted = ScriptedPolicy(SHUT)
    policy, _ = calls(scripted)
    policy.gate(1)
    scripted.gate = dataclasses.replace(OPEN, **{field: nonsense})

    gate = policy.gate(1)

    assert_shut(policy, gate)


@pytest.mark.parametrize("nonsense", [None, True, "good", Judgement.GOOD], ids=repr)
def test_a_verdict_that_is_none_is_a_failure(nonsense):
    scripted = ScriptedPolicy()
    scripted.answers["policy_verdict"] = nonsense
    policy, _ = calls(scripted)

    verdict = policy.verdict()

    assert verdict == Verdict(Judgement.UNDECIDED, "FAILED")
    assert policy.failure.hook == "policy_verdict"


@pytest.mark.parametrize(
    ("field", "nonsense"),
    [
        ("judgement", "good"),
        ("judgement", None),
        ("state", None),
        ("state", 5),
        ("defects", None),
        ("defects", ("ENDIAN_TARGET",)),
        ("evidence", None),
        ("evidence", ("actual = 256",)),
    ],
)
def test_a_verdict_with_a_field_that_is_none_is_a_failure(field, nonsense):
    scripted = ScriptedPolicy()
    scripted.verdict = dataclasses.replace(GOOD, **{field: nonsense})
    policy, _ = calls(scripted)

    verdict = policy.verdict()

    assert verdict == Verdict(Judgement.UNDECIDED, "FAILED")
    assert policy.failure.hook == "policy_verdict"


@pytest.mark.parametrize("nonsense", [None, "22", 1.0, [22], -1], ids=repr)
def test_features_that_are_none_offer_nothing(nonsense):
    scripted = ScriptedPolicy()
    scripted.answers["policy_features"] = nonsense
    policy, _ = calls(scripted)

    assert policy.features() == 0


@pytest.mark.parametrize(
    "nonsense",
    [None, "state", 1, [1], {"a": {1}}, {"a": b""}, {(): 1}],
    ids=repr,
)
def test_a_state_that_is_none_is_no_state(nonsense):
    scripted = ScriptedPolicy()
    scripted.answers["policy_save"] = nonsense
    policy, _ = calls(scripted)

    assert policy.save() is None


@pytest.mark.parametrize("error", [ValueError("no sense"), KeyError("x"), TypeError()])
def test_a_state_that_is_not_taken_is_no_failure(error):
    scripted = ScriptedPolicy(OPEN)
    scripted.raises["policy_load"] = error
    policy, _ = calls(scripted)

    taken = policy.load({})

    assert not taken
    assert policy.failure is None
    assert policy.gate(1) == OPEN


def test_a_policy_that_saves_nothing_may_leave_it_out():
    class Forgetful:
        pass

    policy, _ = calls(Forgetful())

    assert policy.save() is None
    assert policy.features() == 0
    assert policy.failure is None


def test_a_new_session_gives_the_policy_its_say_back():
    scripted = ScriptedPolicy(OPEN)
    scripted.raises["policy_gate"] = LookupError("boom")
    policy, _ = calls(scripted)
    policy.gate(1)
    scripted.raises.clear()

    policy.reopen()

    assert policy.failure is None
    assert policy.gate(1) == OPEN
    assert policy.verdict() == GOOD


def test_a_policy_whose_error_cannot_be_shown_fails_closed_too():
    scripted = ScriptedPolicy(OPEN)
    scripted.raises["policy_observe"] = SpeechlessError()
    policy, _ = calls(scripted)

    policy.observe(READY)

    assert policy.failure.hook == "policy_observe"
    assert "SpeechlessError" in policy.failure.error


@pytest.mark.parametrize("hook", ["policy_gate", "policy_verdict"])
def test_a_policy_whose_answer_cannot_be_shown_fails_closed_too(hook):
    scripted = ScriptedPolicy(OPEN)
    scripted.answers[hook] = Shapeless()
    policy, _ = calls(scripted)

    POLICY_CALLS[hook](policy)

    assert policy.failure.hook == hook


def test_a_policy_that_loads_nothing_takes_no_state():
    class Forgetful:
        @hookimpl
        def policy_save(self):
            return {}

    policy, _ = calls(Forgetful())

    assert not policy.load({"a": 1})


def test_what_a_policy_does_with_its_state_is_its_own_affair():
    class Hungry:
        @hookimpl
        def policy_load(self, state):
            state.clear()

    policy, _ = calls(Hungry())
    state = {"a": 1}

    assert policy.load(state)
    assert state == {"a": 1}


def test_a_state_that_is_none_is_not_taken():
    policy, _ = calls(ScriptedPolicy())

    assert not policy.load({"a": {1}})


@pytest.mark.parametrize("hook", [*POLICY_CALLS, "policy_load"])
def test_who_wants_to_stop_the_program_may(hook):
    scripted = ScriptedPolicy()
    scripted.raises[hook] = KeyboardInterrupt()
    policy, _ = calls(scripted)
    call = POLICY_CALLS.get(hook, lambda policy: policy.load({}))

    with pytest.raises(KeyboardInterrupt):
        call(policy)


def test_a_failure_names_the_plugin_by_the_name_it_is_registered_under():
    scripted = ScriptedPolicy()
    recorder = Recorder()
    device = make_device(scripted, observers=[recorder])
    scripted.raises["policy_gate"] = LookupError("boom")
    device.realize(FakeHost())

    (failed,) = recorder.of(PluginFailed)

    assert device.plugins.get_plugin(failed.plugin) is scripted


# --- observers ----------------------------------------------------------------------


class Raising:
    """An observer that raises once, and counts how often it was called."""

    def __init__(self, error=None):
        self.error = LookupError("boom") if error is None else error
        self.called = 0

    @hookimpl
    def balloon_event(self):
        self.called += 1
        raise self.error


def test_all_observers_see_an_event():
    first, second = Recorder(), Recorder()
    _, observers = calls(ScriptedPolicy(), first, second)

    observers.emit(READY)

    assert first.events == second.events == [READY]


def test_without_observers_nothing_happens():
    _, observers = calls(ScriptedPolicy())

    observers.emit(READY)


def test_an_observer_that_raises_is_cut_off_and_others_go_on():
    before, raising, after = Recorder(), Raising(), Recorder()
    _, observers = calls(ScriptedPolicy(), before, raising, after)

    observers.emit(READY)
    observers.emit(READY)

    failed = PluginFailed("observer 1", "balloon_event", "LookupError: boom")
    assert raising.called == 1
    for recorder in before, after:
        assert recorder.of(DriverReady) == [READY, READY]
        assert recorder.of(PluginFailed) == [failed]


def test_when_all_observers_raise_each_is_cut_off():
    raising = [Raising() for _ in range(5)]
    _, observers = calls(ScriptedPolicy(), *raising)

    observers.emit(READY)
    observers.emit(READY)

    assert [observer.called for observer in raising] == [1] * 5


def test_who_takes_the_place_of_an_observer_that_raised_is_heard():
    recorder = Recorder()
    device = make_device(ScriptedPolicy())
    device.plugins.register(Raising(), name="metrics")
    device.realize(FakeHost())
    device.plugins.unregister(name="metrics")

    device.plugins.register(recorder, name="metrics")
    device.driver_ready()

    assert recorder.of(DriverReady) == [READY]


def test_an_observer_whose_error_cannot_be_shown_is_cut_off_too():
    raising, recorder = Raising(SpeechlessError()), Recorder()
    _, observers = calls(ScriptedPolicy(), raising, recorder)

    observers.emit(READY)

    assert recorder.of(DriverReady) == [READY]
    assert "SpeechlessError" in recorder.of(PluginFailed)[0].error


def test_an_observer_may_leave_the_event_out():
    class Counter:
        called = 0

        @hookimpl
        def balloon_event(self):
            self.called += 1

    counter = Counter()
    _, observers = calls(ScriptedPolicy(), counter)

    observers.emit(READY)

    assert counter.called == 1


def test_an_observer_may_come_later_and_go():
    recorder = Recorder()
    device = make_device(ScriptedPolicy())
    device.realize(FakeHost())

    device.tick()
    device.plugins.register(recorder)
    device.driver_ready()
    device.plugins.unregister(recorder)
    device.tick()

    assert recorder.events == [READY]


def test_who_wants_to_stop_the_program_may_from_an_observer_too():
    _, observers = calls(ScriptedPolicy(), Raising(KeyboardInterrupt()))

    with pytest.raises(KeyboardInterrupt):
        observers.emit(READY)


def test_a_policy_may_listen_too():
    class Both(ScriptedPolicy):
        heard = 0

        @hookimpl
        def balloon_event(self):
            self.heard += 1

    both = Both(Gate(0, reclaim=False, targets=Answer.DEFERRED))
    _, observers = calls(both)

    observers.emit(READY)

    assert both.heard == 1
