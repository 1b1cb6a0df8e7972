"""A hostile front end costs the others under the same daemon nothing."""

from __future__ import annotations

import os
import sys

import pytest
import vhost_user_traces as traces
from vhost_user_front_end import FrontEnd

from balloon_plugin import make_device
from balloon_plugin.hosts.vhost_user.daemon import Daemon


@pytest.fixture
def daemon():
    with Daemon() as daemon:
        yield daemon


@pytest.fixture
def guest(daemon, tmp_path):
    """Give a function that connects a guest with two queues, in its own slot."""
    front_ends = []

    def connect(name="guest"):
        path = tmp_path / f"{name}{len(front_ends)}.sock"
        slot = daemon.add(path, lambda: make_device("none"))
        front_end = FrontEnd(path, daemon)
        front_end.slot = slot
        front_end.say(*traces.UML_CONNECT, *traces.uml_probe())
        front_ends.append(front_end)
        return front_end

    yield connect
    for front_end in front_ends:
        front_end.close()


def is_served(guest):
    """Return whether a buffer of the guest comes back."""
    before = guest.used(0)
    guest.offer(0, 1)
    guest.kick(0)
    return guest.used(0) == (before + 1) & 0xFFFF


# --- memory that shrinks ------------------------------------------------------------


def truncated_at(moment, fd, work):
    """Do the work and empty a file at one of its moments; return how many it had."""
    count = 0

    def profile(*_event):
        nonlocal count
        if count == moment:
            os.ftruncate(fd, 0)
        count += 1

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_memory_that_goes_at_any_moment_ends_one_connection_only(guest, daemon):
    other = guest("other")
    moment, moments = 0, 1
    while moment < moments:
        hostile = guest("hostile")
        hostile.offer(0, 1, 2)
        os.eventfd_write(hostile.fds["kick0"], 1)

        moments = truncated_at(moment, hostile.fds["memory"], daemon.step)
        hostile.kick(0)
        hostile.kick(1)

        assert hostile.cut_off, moment
        assert is_served(other), moment
        daemon.remove(hostile.slot)
        # A prime, so that no place in a loop is always passed over.
        moment += 17

    assert moments > 100


def test_why_the_connection_ended_is_in_the_log(guest, caplog):
    hostile = guest()
    os.ftruncate(hostile.fds["memory"], 0)

    hostile.kick(0)

    assert not hostile.slot.connected
    assert "the front end took its memory away" in caplog.text


def test_memory_that_goes_between_two_turns_harms_nobody(guest):
    hostile, other = guest(), guest()

    os.ftruncate(hostile.fds["memory"], 0)
    assert is_served(other)

    hostile.close()
    assert is_served(other)


def test_a_front_end_that_came_back_with_its_memory_is_served(guest, daemon):
    hostile = guest()
    os.ftruncate(hostile.fds["memory"], 0)
    hostile.kick(0)
    again = FrontEnd(hostile.slot.path, daemon)

    again.say(*traces.UML_CONNECT, *traces.uml_probe())

    assert is_served(again)
    again.close()
