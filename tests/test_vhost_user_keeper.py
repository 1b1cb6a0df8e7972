"""Keeping a driver session, without a front end."""

from __future__ import annotations

import json

import pytest
from fakes import follow, opened

from balloon_plugin.errors import HostError
from balloon_plugin.hosts.state_file import StateFile
from balloon_plugin.hosts.vhost_user.keeper import Keeper
from balloon_plugin.hosts.vhost_user.parked import Parked

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
