"""What a device sees of a front end, without a front end."""

from __future__ import annotations

import os

import pytest

from balloon_plugin.events import ByteOrder
from balloon_plugin.hosts.vhost_user.host import SlotHost
from balloon_plugin.hosts.vhost_user.payloads import Log, Region
from balloon_plugin.hosts.vhost_user.told import Told
from balloon_plugin.hosts.vhost_user.tracking import make_buffer
from balloon_plugin.layouts import Queue
from balloon_plugin.virtqueue import Ring

PAGE = 4096
SIZE = 256
USER = 0x7F00_0000_0000
PACKED = 1 << 34
SPLIT = Ring(SIZE, USER, USER + 2 * PAGE, USER + 3 * PAGE, 0, ByteOrder.LITTLE)


def a_file(size):
    fd = os.memfd_create("file")
    os.truncate(fd, size)
    return fd


@pytest.fixture
def host():
    host = SlotHost("guest", ByteOrder.BIG, 65536)
    host.mapped.add(Region(0x10000, 8 * PAGE, USER, 0), a_file(8 * PAGE), 8)
    yield host
    host.disconnect()


@pytest.fixture
def log(host):
    fd = a_file(PAGE)
    host.log.replace(Log(PAGE, 0), fd)
    yield fd
    os.close(fd)


def test_what_the_user_told_is_known_unless_the_front_end_knows_better(host):
    told = host.facts

    host.front_end_byte_order = ByteOrder.LITTLE

    assert (told.byte_order, told.page_size) == (ByteOrder.BIG, 65536)
    assert host.facts.byte_order is ByteOrder.LITTLE
    assert host.facts.page_size == 65536


def test_a_queue_of_which_nobody_is_told_is_served_as_it_is(host):
    host.on_push = lambda _index, _count: None
    host.start(Queue.STATSQ, SPLIT)

    assert host.queue(Queue.STATSQ) is host.vrings[Queue.STATSQ].queue


def test_what_is_written_to_any_queue_is_logged(host, log):
    host.start(Queue.STATSQ, SPLIT)
    host.vrings[Queue.STATSQ].log = 8 * PAGE

    queue = host.queue(Queue.STATSQ)
    queue.pop(1)

    assert isinstance(queue, Told)
    assert os.pread(log, 3, 0) == bytes([0, 255, 0])


@pytest.mark.parametrize(
    ("features", "written"),
    [(0, [(5, 4 + SIZE * 8 + 2)]), (PACKED, [(5, 4), (0x10000, SIZE * 16)])],
)
def test_all_of_a_ring_may_have_been_written(host, features, written):
    ring = Ring(SIZE, SPLIT.desc, SPLIT.avail, SPLIT.used, features, SPLIT.native)
    host.start(0, ring)

    assert list(host.vrings[0].written()) == []
    host.vrings[0].log = 5
    assert list(host.vrings[0].written()) == written
    host.vrings[0].stop()
    assert list(host.vrings[0].written()) == []


def test_a_queue_that_cannot_start_stands_where_the_front_end_says(host):
    host.vrings[0].base = 7
    elsewhere = Ring(SIZE, 0, 0, 0, 0, ByteOrder.LITTLE)

    assert host.stand(0, None) == 7
    assert host.stand(0, elsewhere) == 7
    assert host.stand(0, SPLIT) == 7


def test_the_next_front_end_finds_nothing_of_the_one_before(host):
    described, fd = make_buffer(2, SIZE)
    host.inflight.replace(described, fd)
    os.close(fd)
    host.front_end_byte_order = ByteOrder.LITTLE
    host.start(0, SPLIT)
    vring, record = host.vrings[0], host.inflight._window
    queue, owned = vring.queue, host.mapped._mapped[0]

    host.disconnect()

    assert queue.broken == "the queue was stopped"
    assert vring.ring is None
    assert record._mapping.closed
    assert owned.mapping.closed
    assert host.facts.byte_order is ByteOrder.BIG
    assert host.queue(0) is None
