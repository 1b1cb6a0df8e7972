"""Keeping a driver session, without a front end."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fakes import follow, opened

from balloon_plugin.errors import HostError
from balloon_plugin.events import Answer, TargetRequested
from balloon_plugin.hosts.state_file import StateFile
from balloon_plugin.hosts.vhost_user.keeper import Keeper, boot
from balloon_plugin.hosts.vhost_user.parked import Parked, export

AWAY = Parked("today", frozenset({(1, 2)}), 0, ready=True, queues={}, device={})


@pytest.fixture
def made():
    return opened(gate=follow)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "guest.json"


@pytest.fixture
def keeper(made, path):
    keeper = Keeper(made.device, path)
    yield keeper
    keeper.close()


@pytest.fixture
def writes(monkeypatch):
    """Give a list of what is written down."""
    written = []
    keep = StateFile.keep
    monkeypatch.setattr(
        StateFile,
        "keep",
        lambda file, value: (written.append(value), keep(file, value)),
    )
    return written


def test_it_is_written_when_something_happened_and_once(made, keeper, writes):
    made.device.set_target(5)
    keeper.keep()
    keeper.keep()
    made.device.tick()
    keeper.keep()

    assert [value["target"] for value in writes] == [5]


def test_what_is_owed_is_written_whether_or_not_something_happened(keeper, writes):
    keeper.watch(
        lambda owed: Parked("", frozenset(), 0, ready=True, queues=owed, device={})
    )
    keeper.keep({0: (7, 1)})
    keeper.keep({0: (8, 1)})

    assert [value["session"]["queues"] for value in writes] == [
        {"0": [7, 1]},
        {"0": [8, 1]},
    ]


def test_a_front_end_that_goes_is_something_that_happened(keeper, writes):
    keeper.keep()
    keeper.watch(lambda _owed: AWAY)

    keeper.park()
    keeper.keep()
    keeper.abandon()
    keeper.keep()

    away, gone = [value["session"] for value in writes]
    assert away["boot"] == "today"
    assert gone is None


def test_what_is_left_is_written_at_the_end(made, path, writes):
    keeper = Keeper(made.device, path)
    made.device.set_target(9)

    keeper.close()

    assert [value["target"] for value in writes] == [9]
    assert not made.device.plugins.is_registered(keeper)


def test_what_cannot_be_written_is_parked_as_it_was(made, keeper, monkeypatch):
    keeper.watch(lambda _owed: AWAY)
    made.device.set_target(5)
    keeper.keep()
    keeper.watch(lambda _owed: None)

    def full(_file, _value):
        raise HostError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(StateFile, "keep", full)
        with pytest.raises(HostError, match="no room"):
            keeper.keep({0: (1, 1)})

    assert keeper.parked == AWAY
    assert json.loads(keeper.export())["session"] is not None


# --- the target of a session that goes on --------------------------------------------


def goes_on(keeper):
    """Let the session that is parked go on, in a host whose queues stand at 1."""
    session = keeper.parked
    host = SimpleNamespace(
        mapped=SimpleNamespace(files=session.files),
        stand=lambda _index, _ring: 1,
        vrings=[SimpleNamespace(base=None) for _ in range(2)],
    )
    assert keeper.resume(host, {}) == {0: 0, 1: 0}
    assert [vring.base for vring in host.vrings] == [1, 1]
    assert keeper.parked is None


def saved(target):
    """Return what a device saved whose user asked for that."""
    made = opened(gate=follow)
    made.device.set_target(target)
    return made.device.save()


def brought(target):
    """Return what another machine sends."""
    return export(target, replace(AWAY, device=saved(target)))


def test_what_the_user_asked_for_while_the_guest_was_away_holds(made, keeper):
    keeper.parked = replace(AWAY, boot=boot(), device=saved(5))
    made.device.set_target(7)

    goes_on(keeper)

    assert made.device.query().requested == 7


def test_a_target_that_is_the_same_is_not_asked_for_again(made, keeper):
    keeper.parked = replace(AWAY, boot=boot(), device=saved(5))
    made.device.set_target(5)
    made.policy.seen.clear()

    goes_on(keeper)

    assert not any(isinstance(event, TargetRequested) for event in made.policy.seen)


def test_a_session_that_came_along_brings_its_target(made, keeper):
    made.device.set_target(9)

    keeper.take_in(brought(5))

    assert made.device.query().requested == 5
    goes_on(keeper)
    assert made.device.query().requested == 5


def test_it_brings_it_though_the_driver_before_may_have_none(made, keeper):
    made.device.set_target(9)
    made.policy.gate = replace(follow(9), targets=Answer.REFUSED, reason="no")
    keeper.take_in(brought(5))
    assert made.device.query().requested == 9
    made.policy.gate = follow

    goes_on(keeper)

    assert made.device.query().requested == 5


def test_what_the_user_asked_for_since_it_came_holds(made, keeper):
    keeper.take_in(brought(5))
    made.device.set_target(9)

    goes_on(keeper)

    assert made.device.query().requested == 9


def test_a_target_that_was_brought_once_holds_for_one_session(made, keeper):
    keeper.take_in(brought(5))
    goes_on(keeper)
    keeper.parked = replace(AWAY, boot=boot(), device=saved(7))

    goes_on(keeper)

    assert made.device.query().requested == 5
