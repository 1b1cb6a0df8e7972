from __future__ import annotations

import os
import threading
import time

import pytest

from balloon_plugin.hosts.vhost_user.loop import Loop


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def event(loop):
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    yield fd
    loop.ignore(fd)
    os.close(fd)


def test_descriptors_call_back_for_as_long_as_they_can_be_read(loop, event):
    called = []
    loop.watch(event, lambda: called.append(1))

    assert not loop.step()
    os.eventfd_write(event, 1)
    assert loop.step()
    assert loop.step()
    os.eventfd_read(event)
    assert not loop.step()
    assert called == [1, 1]


def test_what_is_ignored_does_not_call_back(loop, event):
    loop.watch(event, pytest.fail)
    os.eventfd_write(event, 1)

    loop.ignore(event)
    loop.ignore(event)

    assert not loop.step()


def test_a_callback_may_end_the_watch_of_another(loop, event):
    other = os.eventfd(1)
    called = []

    def first(mine, others):
        called.append(mine)
        loop.ignore(others)

    loop.watch(event, lambda: first(event, other))
    loop.watch(other, lambda: first(other, event))
    os.eventfd_write(event, 1)
    loop.step()

    assert len(called) == 1
    loop.ignore(other)
    os.close(other)


def test_work_takes_turns(loop):
    order = []

    def again(name):
        order.append(name)
        if len(order) < 6:
            loop.soon(lambda: again(name))

    loop.soon(lambda: again("a"))
    loop.soon(lambda: again("b"))
    while loop.step():
        pass

    assert order == ["a", "b", "a", "b", "a", "b", "a"][: len(order)]
    assert len(order) >= 6


def test_work_that_waits_is_not_waited_for(loop):
    loop.soon(lambda: None)

    began = time.monotonic()
    assert loop.step(5)

    assert time.monotonic() - began < 1


def test_timers_call_back_in_order_when_their_time_has_come(loop):
    order, now = [], time.monotonic()
    loop.at(now + 0.02, lambda: order.append("late"))
    loop.at(now + 0.01, lambda: order.append("early"))
    loop.at(now + 60, pytest.fail)
    loop.at(now - 1, lambda: order.append("past"))

    while len(order) < 3:
        loop.step(5)

    assert order == ["past", "early", "late"]
    assert time.monotonic() - now >= 0.02


def test_waiting_ends_in_time(loop):
    loop.at(time.monotonic() + 60, pytest.fail)

    began = time.monotonic()
    assert not loop.step(0.02)

    assert 0.015 < time.monotonic() - began < 5


def test_a_stopped_loop_can_run_again(loop):
    for _ in range(2):
        loop.soon(loop.stop)
        loop.run()


def test_calls_never_overlap_though_nothing_runs(loop):
    inside, seen = [], []

    def enter():
        inside.append(1)
        time.sleep(0.01)
        seen.append(len(inside))
        inside.pop()

    callers = [threading.Thread(target=loop.call, args=(enter,)) for _ in range(4)]
    for each in callers:
        each.start()
    loop.soon(enter)
    loop.soon(loop.stop)
    loop.run()
    for each in callers:
        each.join()

    assert seen == [1] * 5
