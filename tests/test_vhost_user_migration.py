"""A guest that migrates takes its verdict along."""

from __future__ import annotations

import json
import os
import struct

import pytest
import vhost_user_traces as traces
from test_vhost_user_resume import Guest, Host, inflated
from vhost_user_front_end import open_fds
from vhost_user_traces import Sent, number

from balloon_plugin.errors import HostError
from balloon_plugin.hosts.vhost_user import parked, transfer

SAVE, LOAD = 0, 1
DONE, FAILED = 0x100, 0x101


@pytest.fixture
def hosts(tmp_path):
    before = open_fds()
    found = []
    for name in ("source", "destination"):
        (tmp_path / name).mkdir()
        found.append(Host(tmp_path / name))
    yield found
    for host in found:
        host.daemon.close()
    assert open_fds() == before


@pytest.fixture
def source(hosts):
    return hosts[0]


@pytest.fixture
def destination(hosts):
    return hosts[1]


@pytest.fixture
def guest(source):
    guest = Guest(source)
    guest.say(Sent("SET_PROTOCOL_FEATURES", number(traces.QEMU_PROTOCOL)))
    start(guest)
    yield guest
    guest.close()


def start(guest, bases=(0, 0)):
    guest.say(*traces.qemu_start(first=True, bases=bases))


def stop(guest):
    guest.say(*traces.qemu_stop())


def params(direction, phase=0):
    return struct.pack("=II", direction, phase)


def answer(guest, sent):
    ((code, payload),) = guest.say(sent)
    assert code == traces.CODES[sent.request]
    return int.from_bytes(payload, "little")


def set_state_fd(guest, direction, fd, phase=0):
    guest.give("state", fd)
    sent = Sent("SET_DEVICE_STATE_FD", params(direction, phase), ("state",))
    result = answer(guest, sent)
    guest.forget("state")
    return result


def save(guest):
    """Return the state that the daemon writes into a pipe."""
    reading, writing = os.pipe()
    assert set_state_fd(guest, SAVE, writing) == DONE
    data = b""
    while True:
        guest.settle()
        piece = os.read(reading, 1 << 20)
        if not piece:
            break
        data += piece
    os.close(reading)
    assert answer(guest, Sent("CHECK_DEVICE_STATE")) == 0
    return data


def load(guest, data):
    """Give the daemon a state; return what it says in the end."""
    reading, writing = os.pipe()
    assert set_state_fd(guest, LOAD, reading) == DONE
    while data:
        data = data[os.write(writing, data[:4096]) :]
        guest.settle()
    os.close(writing)
    guest.settle()
    return answer(guest, Sent("CHECK_DEVICE_STATE"))


def arrive(guest, host, data, bases):
    """Bring the guest to another daemon, and start its queues there."""
    other = Guest(host, guest)
    other.say(Sent("SET_PROTOCOL_FEATURES", number(traces.QEMU_PROTOCOL)))
    result = load(other, data)
    start(other, bases)
    return other, result


def test_the_session_travels_with_the_guest(source, destination, guest):
    source.daemon.call(lambda: source.device.set_target(7))
    guest.send_pages(0, 1, 2)
    guest.settle()
    guest.say(*traces.uml_write_actual(2))
    stop(guest)

    moved, result = arrive(guest, destination, save(guest), (2, 0))

    assert result == 0
    assert destination.policy.seen == inflated(1, 2)
    status = destination.device.query()
    assert (status.requested, status.actual, status.ballooned) == (7, 2, 2)
    assert status.driver
    moved.send_pages(0, 3)
    moved.settle()
    assert destination.policy.seen == inflated(1, 2, 3)
    moved.close()


def test_a_migration_that_fails_goes_on_where_it_was(source, guest):
    guest.send_pages(0, 1)
    guest.settle()
    stop(guest)
    save(guest)

    guest.say(*traces.qemu_start(bases=(1, 0)))
    guest.send_pages(0, 2)
    guest.settle()

    assert source.policy.seen == inflated(1, 2)


def test_the_state_is_kept_by_the_daemon_that_took_it(destination, guest):
    guest.send_pages(0, 1)
    guest.settle()
    stop(guest)
    data = save(guest)
    other = Guest(destination, guest)
    other.say(Sent("SET_PROTOCOL_FEATURES", number(traces.QEMU_PROTOCOL)))
    assert load(other, data) == 0

    destination.restart()
    again = Guest(destination, other)
    again.say(Sent("SET_PROTOCOL_FEATURES", number(traces.QEMU_PROTOCOL)))
    start(again, (1, 0))

    assert destination.policy.seen == inflated(1)
    again.close()


def test_a_device_without_a_driver_has_a_target_only(source, destination, guest):
    source.daemon.call(lambda: source.device.set_target(7))
    guest.say(Sent("RESET_DEVICE", ack=True))

    moved, result = arrive(guest, destination, save(guest), (0, 0))

    assert result == 0
    assert destination.device.query().requested == 7
    assert destination.policy.seen == []
    moved.close()


def test_a_large_state_goes_in_pieces(source, destination, guest):
    source.policy.seen = [["x" * 100_000]]
    guest.send_pages(0, 1)
    guest.settle()
    stop(guest)

    moved, result = arrive(guest, destination, save(guest), (1, 0))

    assert result == 0
    assert destination.policy.seen == source.policy.seen
    moved.close()


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"nonsense", b"{" * 100_000, b"\xff" * 10]
)
def test_a_damaged_state_is_told_when_asked(destination, guest, data, caplog):
    moved, result = arrive(guest, destination, data, (1, 0))

    assert result == 1
    assert "no session came with the guest" in caplog.text
    assert destination.device.query().driver
    moved.close()


def test_what_is_damaged_inside_shows_when_it_is_taken_up(source, guest, caplog):
    guest.send_pages(0, 1)
    guest.settle()
    stop(guest)
    data = json.loads(save(guest))
    data["session"]["device"]["ledger"] = 5
    assert load(guest, json.dumps(data).encode()) == 0

    guest.say(*traces.qemu_start(bases=(1, 0)))

    assert "the driver is judged anew: the saved state is damaged" in caplog.text
    status = source.device.query()
    assert status.driver
    assert (status.ballooned, status.faults) == (0, 0)


def test_a_state_without_end_is_refused(destination, guest, monkeypatch):
    monkeypatch.setattr(transfer, "MOST_BYTES", 10_000)
    reading, writing = os.pipe()
    other = Guest(destination, guest)
    other.say(Sent("SET_PROTOCOL_FEATURES", number(traces.QEMU_PROTOCOL)))
    assert set_state_fd(other, LOAD, reading) == DONE
    os.write(writing, bytes(20_000))
    other.settle()

    assert answer(other, Sent("CHECK_DEVICE_STATE")) == 1
    os.close(writing)
    other.close()


def test_whoever_asks_too_early_is_answered_in_the_end(destination, guest):
    reading, writing = os.pipe()
    other = Guest(destination, guest)
    other.say(Sent("SET_PROTOCOL_FEATURES", number(traces.QEMU_PROTOCOL)))
    assert set_state_fd(other, LOAD, reading) == DONE
    assert other.say(Sent("CHECK_DEVICE_STATE")) == []

    os.write(writing, parked.export(5, None))
    os.close(writing)
    other.settle()

    assert other.replies() == [(43, number(0))]
    assert destination.device.query().requested == 5
    other.close()


def test_a_pipe_that_nobody_reads_is_an_error(guest):
    reading, writing = os.pipe()
    stop(guest)
    os.close(reading)

    assert set_state_fd(guest, SAVE, writing) == DONE
    guest.settle()

    assert answer(guest, Sent("CHECK_DEVICE_STATE")) == 1


def test_a_pipe_that_cannot_be_read_is_an_error(guest):
    reading, writing = os.pipe()
    stop(guest)
    os.close(reading)

    assert set_state_fd(guest, LOAD, writing) == DONE
    guest.settle()

    assert answer(guest, Sent("CHECK_DEVICE_STATE")) == 1


def test_nothing_was_transferred_yet(guest):
    assert answer(guest, Sent("CHECK_DEVICE_STATE")) == 1


@pytest.mark.parametrize(("direction", "phase"), [(2, 0), (SAVE, 1), (LOAD, 7)])
def test_what_is_not_understood_is_an_error(guest, direction, phase):
    stop(guest)

    assert set_state_fd(guest, direction, os.eventfd(0), phase) == FAILED


@pytest.mark.parametrize("direction", [SAVE, LOAD])
def test_a_device_that_runs_is_not_transferred(guest, direction):
    assert set_state_fd(guest, direction, os.eventfd(0)) == FAILED


def test_a_file_is_no_channel(guest):
    stop(guest)
    guest.give("state", os.memfd_create("state"))

    guest.send(Sent("SET_DEVICE_STATE_FD", params(SAVE), ("state",)))

    assert guest.cut_off


def test_a_transfer_ends_with_its_connection(source, guest):
    reading, _writing = os.pipe()
    stop(guest)
    assert set_state_fd(guest, LOAD, reading) == DONE
    assert set_state_fd(guest, LOAD, os.dup(_writing)) == DONE
    os.close(_writing)

    guest.socket.close()
    guest.settle()

    assert not source.slot.connected


def test_what_is_sent_says_nothing_of_this_machine():
    session = parked.Parked(
        boot="today",
        files=frozenset({(1, 2)}),
        features=3,
        ready=True,
        queues={0: (1, 1)},
        device={},
    )

    target, sent = parked.imported(parked.export(9, session))

    assert target == 9
    assert (sent.boot, sent.files, sent.queues) == ("", frozenset(), {})
    assert sent.migrated
    assert (sent.features, sent.ready, sent.device) == (3, True, {})
    # Each of the two sides sees to it by itself.
    assert parked.unpack(json.loads(parked.export(9, session))) == (9, sent)
    assert parked.imported(json.dumps(parked.pack(9, session)).encode()) == (9, sent)


def test_a_newer_state_is_a_sentence():
    with pytest.raises(HostError, match="has version 9"):
        parked.imported(json.dumps({"version": 9}).encode())
