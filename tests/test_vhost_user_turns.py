from __future__ import annotations

import logging

import pytest

from balloon_plugin.errors import HostError
from balloon_plugin.hosts.vhost_user import turns
from balloon_plugin.hosts.vhost_user.turns import Turns, guarded
from balloon_plugin.hosts.vhost_user.wire import GoneError

# --- one turn -----------------------------------------------------------------------


class FrontEnd:
    """Notes what its turns lead to."""

    name = "guest"

    def __init__(self):
        self.open = True
        self.torn = False
        self.told = []

    def close(self, why, level=logging.WARNING):
        self.open = False
        self.told.append((why, level))

    def abandon(self):
        self.told.append("abandoned")

    def is_torn(self):
        return self.torn

    def rest(self, seconds):
        self.told.append(seconds)

    @guarded
    def turn(self, work):
        work()


@pytest.fixture
def front_end():
    return FrontEnd()


def failing(error):
    def work():
        raise error

    return work


def test_a_turn_that_is_nothing_special_leads_to_nothing(front_end):
    done = []

    front_end.turn(lambda: done.append(1))

    assert done == [1]
    assert front_end.told == []


def test_there_is_no_turn_after_the_end(front_end):
    front_end.open = False

    front_end.turn(failing(AssertionError))

    assert front_end.told == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (GoneError("it went"), [("it went", logging.INFO)]),
        (HostError("no"), [("the connection ends: no", logging.WARNING)]),
        (
            KeyError(),
            [
                "abandoned",
                ("the connection ends because the device failed", logging.WARNING),
            ],
        ),
    ],
)
def test_what_fails_ends_the_connection(front_end, error, told):
    front_end.turn(failing(error))

    assert front_end.told == told


def test_memory_that_went_ends_the_connection(front_end):
    def work():
        front_end.torn = True

    front_end.turn(work)

    assert front_end.told[0] == "abandoned"
    assert "took its memory away" in front_end.told[1][0]


@pytest.mark.parametrize(("took", "told"), [(0.25, []), (0.5, []), (0.75, [0.75])])
def test_after_a_long_turn_there_is_a_rest(front_end, monkeypatch, took, told):
    clock = iter([8.0, 8.0 + took])
    monkeypatch.setattr(turns, "LONG_TURN", 0.5)
    monkeypatch.setattr(turns.time, "thread_time", lambda: next(clock))

    front_end.turn(lambda: None)

    assert front_end.told == told


# --- who waits ----------------------------------------------------------------------


class Loop:
    """Calls back when a test says so."""

    def __init__(self):
        self.due = []
        self.later = []

    def soon(self, call):
        self.due.append(call)

    def at(self, deadline, call):
        self.later.append((deadline, call))

    def run(self):
        due, self.due = self.due, []
        for call in due:
            call()


class Queues:
    """What is served, and in which order."""

    def __init__(self):
        self.loop = Loop()
        self.turns = Turns(self.loop, self.serve)
        self.served = []

    def serve(self, index):
        if self.turns.take(index):
            self.served.append(index)


@pytest.fixture
def queues():
    return Queues()


def test_a_queue_has_one_turn_however_often_it_asked(queues):
    for index in (0, 1, 0):
        queues.turns.soon(index)
    assert queues.served == []
    assert [queues.turns.waits(index) for index in (0, 1, 2)] == [True, True, False]

    queues.loop.run()

    assert queues.served == [0, 1]
    assert not queues.turns.waits(0)
    queues.turns.soon(0)
    queues.loop.run()
    assert queues.served == [0, 1, 0]


def test_in_a_rest_queues_wait_on_and_are_served_after_it(queues, monkeypatch):
    monkeypatch.setattr(turns.time, "monotonic", lambda: 8.0)
    queues.turns.soon(1)
    queues.turns.rest(1.0, queues.turns.wake)

    queues.loop.run()
    assert queues.served == []
    assert queues.turns.waits(1)

    ((deadline, wake),) = queues.loop.later
    assert deadline == 9.0
    wake()
    queues.loop.run()
    assert queues.served == [1]
    assert not queues.turns.resting
