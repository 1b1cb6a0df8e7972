"""Sockets for front ends: whether the daemon behind is there, before anybody comes."""

from __future__ import annotations

import pytest
from vhost_user_front_end import Device, FrontEnd

from balloon_plugin.hosts.relay import Relay
from balloon_plugin.hosts.vhost_user import Daemon


@pytest.fixture
def relay(tmp_path):
    with Relay() as relay:
        relay.add(tmp_path / "front", tmp_path / "back")
        yield relay


@pytest.fixture
def heard(relay, caplog):
    """Give a function that lets a second pass, or not, and returns what was told."""
    caplog.set_level("INFO")

    def heard(*, later=True):
        caplog.clear()
        if later:
            relay._tick()
        while relay.step():
            pass
        return [record.getMessage() for record in caplog.records]

    return heard


def test_that_no_daemon_is_there_is_told_once_and_that_it_is_there(heard, tmp_path):
    front, back = tmp_path / "front", tmp_path / "back"
    why = "No such file or directory"
    assert heard(later=False) == [
        f"{front}: no daemon is on {back} yet ({why}): waiting for one"
    ]
    assert heard() == []

    with Daemon() as daemon:
        daemon.add(back, Device)

        assert heard() == [f"{front}: the daemon is there"]
        assert not daemon.step(), "the daemon noticed"

    # Whether it matters that it is gone is a front end's to tell.
    assert heard() == []


def test_of_a_daemon_that_is_there_nothing_is_told(heard, tmp_path):
    with Daemon() as daemon:
        daemon.add(tmp_path / "back", Device)

        assert heard() == []


def test_a_front_end_looks_for_its_daemon_itself(relay, heard, tmp_path):
    front, back = tmp_path / "front", tmp_path / "back"
    why = "No such file or directory"
    front_end = FrontEnd(front, relay)

    assert heard(later=False) == [
        f"{front}: a front end connected",
        f"{front}: the front end waits: no daemon is on {back}: {why}",
    ]
    assert heard() == []
    front_end.close()
    assert heard() == [f"{front}: the front end went"]
    with Daemon() as daemon:
        daemon.add(back, Device)
        assert heard() == []
