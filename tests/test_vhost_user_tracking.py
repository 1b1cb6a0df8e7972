"""The buffer for what is in flight, without a front end."""

from __future__ import annotations

import errno
import os

import pytest

from balloon_plugin.events import ByteOrder
from balloon_plugin.hosts.vhost_user.files import RefusalError
from balloon_plugin.hosts.vhost_user.tracking import InflightBuffer, make_buffer
from balloon_plugin.virtqueue import Ring, inflight_size

SIZE = 128
RING = Ring(SIZE, 0, 0, 0, 0, ByteOrder.LITTLE)
RECORD = inflight_size(SIZE, packed=False)


@pytest.fixture
def described():
    described, fd = make_buffer(2, SIZE)
    yield described, fd
    os.close(fd)


@pytest.fixture
def buffer(described):
    buffer = InflightBuffer()
    buffer.replace(*described)
    yield buffer
    buffer.close()


def test_each_queue_has_a_record_of_its_own(buffer, described):
    for index in range(2):
        with buffer.record(index, RING) as record:
            assert len(record) == RECORD
            record[0] = 1 + index

    assert buffer.record(2, RING) is None
    assert os.pread(described[1], 2 * RECORD, 0)[::RECORD] == bytes([1, 2])


def test_what_is_forgotten_is_zeros_again(buffer, described):
    with buffer.record(1, RING) as record:
        record[:] = b"x" * RECORD

    buffer.forget()

    assert not any(os.pread(described[1], 2 * RECORD, 0))


def test_without_a_buffer_nothing_is_recorded(buffer):
    buffer.close()
    buffer.close()

    buffer.forget()

    assert buffer.record(0, RING) is None
    assert not buffer.torn


def test_a_buffer_that_is_replaced_is_let_go(buffer, described):
    before = buffer._window

    buffer.replace(*described)

    assert before._mapping.closed


def test_a_buffer_is_let_go_though_somebody_looks_at_it(buffer):
    record = buffer.record(0, RING)

    buffer.close()

    assert buffer.record(0, RING) is None
    record.release()


def test_no_room_for_a_buffer_is_a_sentence(monkeypatch):
    def full(_name):
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(os, "memfd_create", full)

    with pytest.raises(RefusalError, match="no buffer for what is in flight"):
        make_buffer(2, SIZE)
