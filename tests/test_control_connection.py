"""One client of the control socket, between its descriptor and its conversation."""

from __future__ import annotations

import json
import selectors
import socket

import pytest
from control_kit import READY, monitor_of
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.control.connection import MAX_BACKLOG, Connection

EVENT = b"x" * 1000


class Peer:
    """The client's end; ``connection`` is ours."""

    def __init__(self):
        ours, self._socket = socket.socketpair()
        self.connection = Connection(ours, monitor_of(ready=False))

    def send(self, data):
        self._socket.sendall(data)
        self.connection.handle(selectors.EVENT_READ)

    def read(self):
        return self._socket.recv(1 << 20)

    def close(self):
        self._socket.close()

    def end(self):
        self.connection.socket.close()
        self._socket.close()


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.end()


def tell_until_full(peer):
    """Tell events until one has to wait."""
    while peer.connection.mask == selectors.EVENT_READ:
        assert not peer.connection.tell(EVENT)


def test_a_client_is_greeted_at_once(peer):
    assert peer.read().startswith(b'{"QMP"')


def test_events_wait_for_a_client_to_be_ready(peer):
    peer.read()

    peer.connection.tell(EVENT)
    peer.send(READY)
    peer.connection.tell(EVENT)

    assert peer.read() == b'{"return": {}}\r\n' + EVENT


def test_events_that_cannot_be_sent_wait_up_to_a_bound(peer):
    peer.send(READY)
    tell_until_full(peer)

    told = 0
    while not peer.connection.tell(EVENT):
        told += 1

    assert peer.connection.done
    assert MAX_BACKLOG // 1000 - 1 <= told <= MAX_BACKLOG // 1000


def test_who_reads_again_gets_all_that_waited(peer):
    peer.send(READY)
    peer.read()
    tell_until_full(peer)

    read = 0
    while peer.connection.mask == selectors.EVENT_WRITE:
        read += len(peer.read())
        peer.connection.handle(selectors.EVENT_WRITE)
    read += len(peer.read())

    assert read % len(EVENT) == 0
    assert not peer.connection.done


def test_while_answers_wait_nothing_is_read(peer):
    peer.send(READY)
    tell_until_full(peer)

    assert peer.connection.mask == selectors.EVENT_WRITE


def test_who_hung_up_is_done(peer):
    peer.close()

    peer.connection.handle(selectors.EVENT_READ)

    assert peer.connection.done


def test_who_hung_up_unread_is_done(peer):
    peer.send(READY)
    tell_until_full(peer)
    peer.close()

    peer.connection.handle(selectors.EVENT_WRITE)

    assert peer.connection.done


def test_who_hung_up_is_not_said_to_read_too_little(peer):
    peer.send(READY)
    peer.close()

    assert not peer.connection.tell(EVENT)
    assert peer.connection.done


GARBAGE = st.binary(min_size=1) | st.text('{}[]"\\\n:1a', min_size=1).map(str.encode)


@given(st.lists(GARBAGE, max_size=8))
def test_whatever_a_client_sends_is_answered_with_messages(pieces):
    peer = Peer()
    try:
        for piece in pieces:
            peer.send(piece)
        peer.send(b'"\n')  # ends whatever has begun, but for brackets

        greeting, *answers = peer.read().splitlines()
        assert b"QMP" in greeting
        assert all(json.loads(answer)["error"] for answer in answers)
        assert not peer.connection.done
    finally:
        peer.end()
