"""Making devices, and finding the policies that are installed.

Strangers' policies are installed for real: as a distribution in a folder on
``sys.path``, with entry points in its metadata.
"""

from __future__ import annotations

import itertools
import sys

import pytest
from fakes import OPEN, SHUT, FakeHost, Recorder, ScriptedPolicy

from balloon_plugin.errors import PluginError
from balloon_plugin.events import GuestDescribed
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.manager import (
    POLICY_GROUP,
    PolicyInfo,
    find_policies,
    make_device,
    make_policy,
    policy_factory,
)

STRANGER = '''
from fakes import ScriptedPolicy


class Stranger(ScriptedPolicy):
    """Judge by the colour of the driver.

    At length.
    """

    def __init__(self, *, colour="red", max_shades=3):
        super().__init__()
        self.colour, self.max_shades = colour, max_shades


def silent():
    return Stranger()


def picky(*, shade):
    raise ValueError(f"no shade is called {shade}")


def needy(*, must):
    return Stranger()


def taciturn():
    raise RuntimeError


def greedy(shade, *more, hue="any", **rest):
    return Stranger()


not_callable = 3
no_signature = dict
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with policies: names, and where to find them."""
    numbers = itertools.count()

    def install_(**entries):
        number = next(numbers)
        module = f"stranger_{tmp_path.name.replace('-', '_')}_{number}"
        home = tmp_path / str(number)
        info = home / f"stranger_{number}-1.0.dist-info"
        info.mkdir(parents=True)
        (home / f"{module}.py").write_text(STRANGER)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: stranger-{number}\nVersion: 1.0\n"
        )
        lines = [f"{name} = {module}:{place}" for name, place in entries.items()]
        (info / "entry_points.txt").write_text(
            "\n".join([f"[{POLICY_GROUP}]", *lines, ""])
        )
        monkeypatch.syspath_prepend(home)

    yield install_
    for name in [name for name in sys.modules if name.startswith("stranger_")]:
        del sys.modules[name]


def info(name):
    (found,) = [policy for policy in find_policies() if policy.name == name]
    return found


# --- making devices -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["none", "probe", "feature-bit", "probe:pages=32"])
def test_a_policy_is_chosen_by_name(name):
    device = make_device(name)
    device.realize(FakeHost())

    assert device.query().policy == name


def test_an_option_reaches_the_policy():
    device = make_device("probe:pages=32")
    device.realize(FakeHost())

    assert device.query().advertised == 32


def test_without_a_name_there_is_a_policy():
    device = make_device()
    device.realize(FakeHost())

    assert device.query().policy in {policy.name for policy in find_policies()}


def test_a_policy_may_be_an_object():
    policy = ScriptedPolicy(OPEN)
    device = make_device(policy)
    device.realize(FakeHost())

    assert device.query().policy == "ScriptedPolicy"
    assert device.query().gate == OPEN
    assert isinstance(policy.seen[0], GuestDescribed)


def test_an_object_may_be_given_a_name():
    device = make_device(ScriptedPolicy(), name="mine")
    device.realize(FakeHost())

    assert device.query().policy == "mine"


def test_a_factory_makes_a_policy_each_time():
    factory = policy_factory("probe:pages=32")

    one, other = factory(), factory()

    assert one is not other
    assert one.policy_gate(0).num_pages == 32


def test_devices_know_nothing_of_each_other():
    first, second = Recorder(), Recorder()
    one = make_device("probe", observers=[first])
    other = make_device("none", observers=[second])
    one.realize(FakeHost())
    other.realize(FakeHost())
    second.events.clear()

    one.reset()

    assert one.plugins is not other.plugins
    assert second.events == []
    assert (one.query().policy, other.query().policy) == ("probe", "none")


def test_observers_listen_from_the_beginning():
    recorder = Recorder()

    make_device("none", observers=[recorder]).realize(FakeHost())

    assert isinstance(recorder.events[0], GuestDescribed)


def test_any_number_of_observers_at_once():
    recorders = [Recorder(), Recorder()]

    make_device("none", observers=iter(recorders)).realize(FakeHost())

    assert recorders[0].events == recorders[1].events != []


# --- plugins that do not fit --------------------------------------------------------


class NoGate:
    @hookimpl
    def policy_observe(self, event):
        pass

    @hookimpl
    def policy_verdict(self):
        pass


class Unmarked:
    def policy_observe(self, event):
        pass

    def policy_gate(self, requested):
        pass

    def policy_verdict(self):
        pass


class Misspelt(ScriptedPolicy):
    @hookimpl
    def policy_obsrve(self, event):
        pass


class Meddler(ScriptedPolicy):
    @hookimpl
    def set_target(self, num_pages):
        pass


class WrongArgument(ScriptedPolicy):
    @hookimpl
    def policy_gate(self, wanted):
        pass


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        (object(), "policy_observe, policy_gate, policy_verdict"),
        (NoGate(), "NoGate is not a policy: it must implement policy_gate"),
        (Meddler(), "Meddler is a policy, but implements set_target too"),
        (Unmarked(), "policy_gate, policy_verdict, marked with balloon_plugin.hooki"),
        (ScriptedPolicy, r"is a class: give an object .*, ScriptedPolicy\(\)"),
        (Misspelt(), "policy_obsrve"),
        (WrongArgument(), "wanted"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(policy, complaint):
    with pytest.raises(PluginError, match=complaint):
        make_device(policy)


def test_a_policy_may_call_its_methods_as_it_likes():
    class Named:
        @hookimpl(specname="policy_observe")
        def see(self, event):
            pass

        @hookimpl(specname="policy_gate")
        def decide(self):
            return OPEN

        @hookimpl(specname="policy_verdict")
        def conclude(self):
            return ScriptedPolicy().verdict

    device = make_device(Named())
    device.realize(FakeHost())

    assert device.query().gate == OPEN


class Blind:
    def balloon_event(self, event):
        pass


class Misheard:
    @hookimpl
    def baloon_event(self, event):
        pass


@pytest.mark.parametrize(
    ("observer", "complaint"),
    [
        (Blind(), "sees nothing: it must implement balloon_event, marked with balloon"),
        (Misheard(), "baloon_event"),
        (Recorder, "Recorder is a class"),
    ],
)
def test_an_observer_that_does_not_fit_is_refused(observer, complaint):
    with pytest.raises(PluginError, match=complaint):
        make_device("none", observers=[observer])


def test_the_same_observer_twice_is_refused():
    recorder = Recorder()

    with pytest.raises(PluginError, match="already registered"):
        make_device("none", observers=[recorder, recorder])


class Meddling(Recorder):
    """An observer that has hooks which are not an observer's."""

    @hookimpl
    def policy_gate(self):
        return OPEN

    @hookimpl
    def get_features(self):
        return 1 << 5


def test_an_observer_cannot_change_anything():
    policy = ScriptedPolicy(SHUT)

    try:
        device = make_device(policy, observers=[Meddling()])
    except PluginError:
        return  # to refuse it is as good

    device.realize(FakeHost())
    assert device.query().gate == SHUT
    assert device.get_features() == 0


# --- names and options --------------------------------------------------------------


def test_an_unknown_policy_is_answered_with_the_nearest():
    with pytest.raises(PluginError, match=r"no policy 'prob'.*did you mean probe"):
        make_device("prob")


def test_a_policy_like_no_other_is_answered_with_all():
    with pytest.raises(
        PluginError, match=r"no policy 'xyzzy'.*feature-bit.*none.*probe"
    ):
        make_device("xyzzy")


def test_an_unknown_option_is_answered_with_those_that_exist():
    with pytest.raises(PluginError, match="probe has no option colour; it has pages"):
        make_device("probe:colour=red")


def test_where_there_are_no_options_that_is_the_answer():
    with pytest.raises(PluginError, match="none has no option pages; it has none"):
        make_device("none:pages=16")


@pytest.mark.parametrize("text", ["probe:pages", "probe:=16", "probe:="])
def test_an_option_without_name_or_value_is_answered_with_the_form(text):
    with pytest.raises(PluginError, match="NAME:option=value") as error:
        make_device(text)

    assert repr(text) in str(error.value)


def test_a_wrong_value_is_a_plugin_error():
    with pytest.raises(PluginError, match=r"whole number.*'many'"):
        make_device("probe:pages=many")


@pytest.mark.parametrize("text", ["probe:", "probe:,", "probe: pages = 32 ,"])
def test_spaces_and_empty_options_do_no_harm(text):
    assert make_policy(text) is not None


# --- policies of strangers ----------------------------------------------------------


def test_a_strangers_policy_comes_in_by_the_same_door(install):
    install(stranger="Stranger")

    device = make_device("stranger")
    device.realize(FakeHost())

    assert device.query().policy == "stranger"
    assert info("stranger") == PolicyInfo(
        "stranger",
        "Judge by the colour of the driver.",
        ("colour=red", "max_shades=3"),
        "stranger-0",
    )


def test_options_are_written_with_hyphens_or_without(install):
    install(stranger="Stranger")

    policy = make_policy("stranger:max-shades=7,colour=dark blue")

    assert (policy.max_shades, policy.colour) == ("7", "dark blue")


def test_a_policy_without_documentation_is_listed_all_the_same(install):
    install(silent="silent")

    assert info("silent").summary == "no description"


def test_options_are_parameters_with_a_name_and_need_no_default(install):
    install(greedy="greedy")

    assert info("greedy").options == ("shade", "hue=any")


@pytest.mark.parametrize("place", ["Missing", "not_callable", "no_signature"])
def test_a_broken_policy_is_listed_with_the_reason(install, place):
    install(broken=place, stranger="Stranger")

    names = [policy.name for policy in find_policies()]

    assert {"broken", "stranger", "probe"} <= set(names)
    assert "broken" in info("broken").summary


@pytest.mark.parametrize("place", ["Missing", "not_callable", "no_signature"])
def test_a_broken_policy_cannot_be_chosen(install, place):
    install(broken=place)

    with pytest.raises(PluginError, match="broken"):
        make_device("broken")


def test_a_broken_policy_harms_no_other(install):
    install(broken="Missing")

    assert make_device("probe") is not None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("picky:shade=mauve", "picky:shade=mauve.*no shade is called mauve"),
        ("needy", "needy.*must"),
        ("taciturn", "taciturn cannot be made: RuntimeError"),
    ],
)
def test_a_policy_that_cannot_be_made_is_a_plugin_error(install, text, complaint):
    install(picky="picky", needy="needy", taciturn="taciturn")

    with pytest.raises(PluginError, match=complaint):
        make_device(text)


def test_built_in_policies_are_listed_by_name_with_a_line_on_each():
    policies = find_policies()

    names = [policy.name for policy in policies]
    assert names == sorted(names)
    assert {"feature-bit", "none", "probe"} <= set(names)
    assert info("probe").options == ("pages=16",)
    assert info("probe").origin == "balloon-plugin"
    for policy in policies:
        assert policy.summary.endswith("."), policy
