"""The log of pages that were written to, without a front end."""

from __future__ import annotations

import os

import pytest

from balloon_plugin.hosts.vhost_user.dirty import DirtyLog
from balloon_plugin.hosts.vhost_user.payloads import Log

STRETCH = 8 * 4096


@pytest.fixture
def log():
    log = DirtyLog()
    yield log
    log.close()


@pytest.fixture
def file():
    fd = os.memfd_create("log")
    os.truncate(fd, 4096)
    yield fd
    os.close(fd)


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_without_a_log_nothing_is_marked(log):
    log.mark(0, STRETCH)

    assert not log.active
    assert not log.torn


def test_a_range_is_marked_up_to_the_end_of_the_log(log, file):
    log.replace(Log(4, 1), file)

    log.mark(2 * STRETCH + 1, STRETCH)
    log.mark(3 * STRETCH, 9 * STRETCH)
    log.mark(9 * STRETCH, STRETCH)

    assert log.active
    assert os.pread(file, 8, 0) == bytes([0, 0, 0, 255, 255, 0, 0, 0])


def test_only_what_was_marked_is_told(log, file):
    notifier = os.eventfd(0, os.EFD_NONBLOCK)
    log.replace(Log(4, 0), file)
    log.set_notifier(notifier)

    log.mark(4 * STRETCH, STRETCH)

    with pytest.raises(BlockingIOError):
        os.eventfd_read(notifier)
    log.mark(3 * STRETCH, STRETCH)
    assert os.eventfd_read(notifier) == 1


def test_what_is_replaced_is_let_go(log, file):
    first, second = os.eventfd(0), os.eventfd(0)
    log.replace(Log(4, 0), file)
    log.set_notifier(first)
    window = log._window

    log.replace(Log(4, 0), file)
    log.set_notifier(second)

    assert window._mapping.closed
    assert (is_open(first), is_open(second)) == (False, True)


def test_what_is_closed_is_let_go_once(log, file):
    notifier = os.eventfd(0)
    log.replace(Log(4, 0), file)
    log.set_notifier(notifier)
    log.discards = True
    window = log._window

    log.close()
    log.close()

    assert window._mapping.closed
    assert not is_open(notifier)
    assert not log.active
    assert not log.discards
