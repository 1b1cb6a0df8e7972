"""A real daemon dies, and its front end does not notice."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import tempfile
import time
from pathlib import Path
from unittest import mock

import pytest
import vhost_user_traces as traces
from examples import times
from hypothesis import given
from hypothesis import strategies as st
from vhost_user_front_end import a_memfd, open_fds
from vhost_user_lives import Guest, Host, PackedGuest, inflated, killed_at
from vhost_user_traces import CODES, GUEST_RAM, USER_RAM, Sent, number, region, state

from balloon_plugin.hosts.relay import Relay, line
from balloon_plugin.hosts.relay.talk import MAX_DEATHS
from balloon_plugin.hosts.vhost_user import files, protocol
from balloon_plugin.hosts.vhost_user.wire import LostError

PATIENCE = 20


class Relayed(Host):
    """A daemon that can die, behind a relay that does not.

    :ivar path: the relay's socket.
    """

    def __init__(self, folder):
        self.relay = Relay()
        (folder / "back").mkdir(parents=True)
        self.alive = False
        super().__init__(folder / "back")
        self.back, self.path = self.path, folder / "guest.sock"
        self.relay.add(self.path, self.back)

    def start(self):
        path, self.path = self.path, getattr(self, "back", self.path)
        super().start()
        self.path, self.alive = path, True

    def die(self):
        super().die()
        self.alive = False

    def step(self, timeout=0.0):
        worked = self.relay.step()
        worked |= self.alive and self.daemon.step()
        return worked or self.relay.step(timeout)

    def until(self, what):
        end = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < end
            self.step(0.01)

    @property
    def line(self):
        """The front end's line."""
        return self.relay._slots[0].visitor

    def restart(self):
        """Let a daemon die and another come, and the relay find it."""
        before = self.line._back
        super().restart()
        self.until(lambda: self.line._back not in (None, before))
        self.until(lambda: self.line._introduction is None)

    def close(self):
        self.relay.close()
        if self.alive:
            self.daemon.close()


@pytest.fixture(autouse=True)
def _soon():
    """Look for a daemon again at once."""
    with mock.patch.object(line, "_SOON", 0.0):
        yield


@pytest.fixture
def host(tmp_path):
    before = open_fds()
    host = Relayed(tmp_path)
    yield host
    host.close()
    assert open_fds() == before


def begin(host, kind=Guest):
    """Connect a guest and start its queues."""
    guest = kind(host)
    guest.settle()
    return guest.start()


@pytest.fixture
def guest(host):
    guest = begin(host)
    yield guest
    guest.close()


def inflate(guest, *pages):
    guest.send_pages(0, *pages)
    guest.settle()


def heard(host, guest, count=1):
    """Wait for so many replies, and see that there are no more."""
    replies = []
    host.until(lambda: replies.extend(guest.replies()) or len(replies) >= count)
    guest.settle()
    assert guest.replies() == []
    return replies


# --- it goes on ---------------------------------------------------------------------


def test_a_guest_goes_on_where_it_was(host, guest):
    inflate(guest, 1, 2)
    guest.say(*traces.uml_write_actual(2))

    for page in (3, 4, 5):
        host.restart()
        inflate(guest, page)

    assert host.policy.seen == inflated(1, 2, 3, 4, 5)
    assert guest.used(0) == 5
    assert host.device.query().actual == 2
    assert host.device.query().ballooned == 5


def test_what_it_does_meanwhile_waits(host, guest):
    inflate(guest, 1)
    host.die()
    guest.send_pages(0, 2, 3)
    guest.send(*traces.uml_write_actual(3))
    guest.send(*traces.UML_READ_TARGET)
    assert guest.replies() == []

    host.start()

    assert [CODES["SET_CONFIG"], CODES["GET_CONFIG"]] == [
        code for code, _ in heard(host, guest, 2)
    ]
    assert host.policy.seen == inflated(1, 2, 3)
    assert host.device.query().actual == 3


def test_a_packed_guest_goes_on(host):
    guest = begin(host, PackedGuest)
    for turn in range(3):
        # More than a lap, so that both wrap counters turn.
        for page in range(80):
            inflate(guest, 100 * turn + page % 20)
            assert len(guest.rings[0].returned()) == 1
        host.restart()

    assert len(host.policy.seen) == 240
    assert host.device.query().ballooned == 60
    guest.close()


def test_the_record_of_what_is_in_flight_is_brought_along(host):
    guest = Guest(host)
    guest.records = True
    guest.start()
    inflate(guest, 1, 2)

    host.restart()
    inflate(guest, 3)

    assert host.policy.seen == inflated(1, 2, 3)
    assert os.pread(guest.fds["inflight"], 16, 0)[14:] == (3).to_bytes(2, "little")
    guest.close()


def test_regions_that_came_and_went(host, guest):
    guest.say(Sent("SET_PROTOCOL_FEATURES", number(traces.QEMU_PROTOCOL)))
    for at in range(12):
        place = GUEST_RAM + traces.RAM_SIZE + at * 4096
        more = bytes(8) + region(place, 4096, USER_RAM - (at + 1) * 4096, 0)
        guest.give(f"more{at}", a_memfd(4096))
        guest.say(Sent("ADD_MEM_REG", more, (f"more{at}",), ack=True))
    guest.say(Sent("REM_MEM_REG", more, ack=True))
    inflate(guest, 1)
    before = host.slot._host.mapped.files

    host.restart()

    assert host.slot._host.mapped.files == before
    assert len(before) == 12
    assert host.device.query().ballooned == 1


def test_a_guest_that_waits_for_nothing_is_let_go_with_its_daemon(host, guest, caplog):
    inflate(guest, 1)
    guest.say(Sent("SET_PROTOCOL_FEATURES", number(traces.UML_PROTOCOL & ~(1 << 3))))
    host.die()
    # By the time that the next daemon comes, its driver may be gone.
    at = traces.ring_at(0)[2]
    guest.poke(at, b"others'")

    host.until(lambda: host.line is None)
    host.start()
    for _ in range(20):
        host.step(0.001)

    assert "that waits for no answers (REPLY_ACK)" in caplog.text
    assert guest.cut_off
    assert guest.peek(at, 7) == b"others'"


def test_a_queue_that_was_stopped_stays_so(host, guest):
    inflate(guest, 1, 2)
    guest.say(Sent("SET_VRING_ENABLE", state(0, 0), ack=True))
    assert guest.say(Sent("GET_VRING_BASE", state(0, 0))) == [
        (CODES["GET_VRING_BASE"], state(0, 2))
    ]

    host.restart()
    guest.send_pages(0, 3)
    guest.settle()
    assert guest.used(0) == 2
    guest.say(
        Sent("SET_VRING_BASE", state(0, 2), ack=True),
        Sent("SET_VRING_KICK", number(0), ("kick0",), ack=True),
        Sent("SET_VRING_ENABLE", state(0, 1), ack=True),
    )

    assert host.policy.seen == inflated(1, 2, 3)


# --- killed at any moment -----------------------------------------------------------


GOING_ON = [
    *traces.uml_write_actual(4),
    *traces.UML_READ_TARGET,
    Sent("SET_MEM_TABLE", traces.table(region()), ("memory",), ack=True),
    Sent("SET_VRING_CALL", number(0), ("call0",), ack=True),
]
STOPPING = [
    Sent("SET_VRING_ENABLE", state(0, 0), ack=True),
    Sent("GET_VRING_BASE", state(0, 0)),
]


def killed_over(folder, sent):
    """Let daemons die over a request, each at another moment; yield what was left."""
    moment, lived = 0, False
    while not lived:
        host = Relayed(folder / str(moment))
        guest = begin(host)
        inflate(guest, 1, 2)
        guest.send_pages(0, 3)
        head = struct.pack(
            "=III", CODES[sent.request], 1 | sent.ack << 3, len(sent.payload)
        )
        guest.raw(head + sent.payload, [guest.fd(name) for name in sent.fds])
        for _ in range(4):
            host.relay.step()

        lived = killed_at(moment, host.daemon.step) is not None
        if not lived:
            host.restart()
        yield host, guest
        guest.close()
        host.close()
        # A prime, so that no place in a loop is always passed over.
        moment += 53
    assert moment > 106


@pytest.mark.parametrize("sent", GOING_ON, ids=lambda sent: sent.request)
def test_each_request_is_answered_once_and_each_buffer_counts_once(tmp_path, sent):
    answers = set()
    for host, guest in killed_over(tmp_path, sent):
        (answer,) = heard(host, guest)
        answers.add(answer)
        inflate(guest, 4)

        assert host.policy.seen == inflated(1, 2, 3, 4)
        assert guest.used(0) == 4
    assert len(answers) == 1


@pytest.mark.parametrize("sent", STOPPING, ids=lambda sent: sent.request)
def test_a_queue_stops_once_and_for_all(tmp_path, sent):
    for host, guest in killed_over(tmp_path, sent):
        (answer,) = heard(host, guest)
        handled = guest.used(0)
        inflate(guest, 4)

        assert answer[0] == CODES[sent.request]
        assert answer[1] in (number(0), state(0, handled))
        assert guest.used(0) == handled
        assert host.policy.seen == inflated(1, 2, 3)[:handled]


# --- without a daemon ---------------------------------------------------------------


def test_a_guest_may_come_before_its_daemon(host):
    host.die()
    guest = Guest(host)
    guest.send(*traces.UML_CONNECT[:2])

    host.start()

    assert [code for code, _ in heard(host, guest)] == [CODES["GET_FEATURES"]]
    guest.close()


@pytest.mark.usefixtures("guest")
def test_one_line_tells_that_it_waits_and_one_that_it_does_not(host, caplog):
    caplog.set_level("INFO")
    host.die()
    for _ in range(20):
        host.step(0.002)
    host.start()
    host.until(lambda: "the daemon is there" in caplog.text)

    told = [each.getMessage() for each in caplog.records if each.module == "line"]
    why = f"no daemon is on {host.back}: Connection refused"
    assert told == [
        f"{host.path}: the front end waits: {why}",
        f"{host.path}: the daemon is there",
    ]


def test_why_there_is_no_daemon_is_told_whatever_it_is(host, guest, caplog):
    host.line._daemon = host.back.with_name("x" * 108)

    host.die()
    host.until(lambda: "AF_UNIX path too long" in caplog.text)

    assert guest.fds
    host.start()


@pytest.mark.parametrize("waits", [True, False], ids=["with a request", "silent"])
def test_a_guest_that_goes_meanwhile_is_let_go(host, guest, waits):
    host.die()
    if waits:
        guest.send(*traces.UML_READ_TARGET)
    guest.socket.close()

    host.until(lambda: host.line is None)

    # It may come again.
    host.start()
    guest.connect(host.path)
    assert guest.say(*traces.UML_CONNECT[:2])


def test_a_daemon_with_less_is_told_and_another_one_awaited(host, guest, caplog):
    caplog.set_level("INFO")
    inflate(guest, 1)
    host.die()
    with mock.patch.object(protocol, "TRANSPORT", protocol.TRANSPORT & ~(1 << 28)):
        host.start()
        # It is asked again and again.
        host.until(lambda: caplog.text.count(f"{host.back}: a front end conn") == 4)
        host.die()
    assert caplog.text.count("the daemon has not all features that are in use") == 1
    assert "in use (without 0x10000000): start one" in caplog.text

    host.start()
    host.until(lambda: host.slot._host.queue(0) is not None)
    inflate(guest, 2)

    assert host.policy.seen == inflated(1, 2)


@pytest.mark.usefixtures("guest")
def test_a_daemon_that_lives_for_a_while_is_soon_looked_for_again(host):
    with mock.patch.object(line, "_LATEST", 0.0):
        host.line._delay = 1000.0
        host.restart()


def test_looks_become_rarer_but_not_rare(host, guest, monkeypatch):
    looks, now = [], [0.0]
    monkeypatch.setattr(line, "_SOON", 0.02)
    host.line._delay = line._SOON
    monkeypatch.setattr(line.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(host.relay._loop, "at", lambda when, _: looks.append(when))
    host.die()
    guest.settle()
    for _ in range(9):
        host.line._connect()

    assert looks == [0.02, 0.04, 0.08, 0.16, *[0.25] * 6]


def test_daemons_that_do_not_last_are_looked_for_no_sooner(host, guest, monkeypatch):
    looks, now = [], [0.2]
    monkeypatch.setattr(line.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(host.relay._loop, "at", lambda when, _: looks.append(when))
    host.line._since, host.line._delay = 0.0, 0.08
    host.die()
    guest.settle()

    # One that is lost before it was told all has not lived at all.
    now[0] = 100.0
    host.line._introduction = host.line._talk.introduce(line._look)
    host.line._lose()

    assert looks == [0.28, 100.16]


# --- a daemon that errs -------------------------------------------------------------


class Impostor:
    """A daemon that answers the relay with whatever a test puts in."""

    def __init__(self, host):
        host.die()
        host.back.unlink()
        self.comings = 0
        self._host = host
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.fspath(host.back))
        self._listener.listen()
        self._listener.setblocking(False)

    def answer(self, what, comings):
        """Let so many connections be answered by that."""
        last, end = self.comings + comings, time.monotonic() + PATIENCE
        while self.comings < last:
            assert time.monotonic() < end
            self._host.step(0.001)
            with contextlib.suppress(BlockingIOError):
                sock, _ = self._listener.accept()
                with sock:
                    sock.settimeout(PATIENCE)
                    self._host.relay.step()
                    sock.sendall(what)
                    for _ in range(200):
                        self._host.relay.step()
                self.comings += 1

    def close(self):
        self._listener.close()


@pytest.fixture
def impostor(host):
    impostor = Impostor(host)
    yield impostor
    impostor.close()


ALL = number(2**64 - 1)
TO_THE_FIRST = struct.pack("=III", CODES["GET_FEATURES"], 5, 8)


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(b"", id="silence"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", id="another protocol"),
        pytest.param(struct.pack("=III", 1, 1, 8) + ALL, id="a request"),
        pytest.param(struct.pack("=III", 15, 5, 8) + ALL, id="not to what was asked"),
        pytest.param(struct.pack("=III", 1, 5, 0), id="of another size"),
        pytest.param(struct.pack("=III", 1, 5, 4000), id="half a reply"),
        pytest.param(TO_THE_FIRST + number(0), id="nothing on offer"),
        pytest.param(
            TO_THE_FIRST + ALL + TO_THE_FIRST + ALL + (TO_THE_FIRST + number(0)) * 50,
            id="always to the first",
        ),
    ],
)
def test_a_daemon_that_is_none_is_left_alone(host, guest, impostor, what, caplog):
    caplog.set_level("INFO")
    assert host.line is not None
    impostor.answer(what, 3)

    assert host.line is not None
    assert "the daemon is there" not in caplog.text
    impostor.close()
    host.start()
    host.until(lambda: host.slot._host.queue(0) is not None)
    inflate(guest, 1)
    assert host.policy.seen == inflated(1)


def test_a_request_that_nobody_was_asked_waits_for_ever(host, guest, impostor):
    guest.send(*traces.UML_READ_TARGET)
    impostor.answer(b"", 2 * MAX_DEATHS)
    impostor.close()

    host.start()

    assert [code for code, _ in heard(host, guest)] == [CODES["GET_CONFIG"]]


def test_a_daemon_that_speaks_unasked_is_left(host, guest):
    inflate(guest, 1)
    before = host.line._back
    host.slot._door.visitor._wire.send(struct.pack("=III", 1, 5, 8) + number(0))

    host.until(lambda: host.line._back not in (None, before))
    host.until(lambda: host.slot._host.queue(0) is not None)
    inflate(guest, 2)

    assert host.policy.seen == inflated(1, 2)


def test_a_daemon_that_takes_nothing_more_is_left(host, guest):
    with mock.patch.object(host.line._back._wire, "send", side_effect=LostError):
        guest.send(*traces.UML_READ_TARGET)

    assert [code for code, _ in heard(host, guest)] == [CODES["GET_CONFIG"]]


def test_descriptors_of_a_reply_are_handed_on_and_let_go(host):
    guest = Guest(host)
    guest.records = True
    guest.start()
    before = open_fds()

    for _ in range(3):
        os.close(guest.ask_for_record(2, 128)[1])

    assert open_fds() == before
    guest.close()


def test_descriptors_of_a_request_are_held_as_long_as_it_holds(guest):
    before = len(open_fds())

    for _ in range(3):
        guest.say(Sent("SET_VRING_CALL", number(0), ("call0",), ack=True))
        guest.refused("SET_VRING_ERR", number(9), ("call0",))

    assert len(open_fds()) == before


def test_a_request_over_which_daemons_die_is_not_passed_on_for_ever(
    host, guest, caplog
):
    guest.send(Sent("GET_CONFIG", traces.config(0, bytes(4))[:-1]))

    host.until(lambda: host.line is None)

    assert "the connection ends: 5 daemons were lost over GET_CONFIG" in caplog.text
    assert guest.cut_off


# --- a front end that errs ----------------------------------------------------------


def test_what_is_refused_is_refused_by_the_daemon(guest):
    guest.refused("SET_VRING_NUM", state(9, 1))
    guest.refused("SET_FEATURES", number(1 << 60))
    guest.refused("ADD_MEM_REG", bytes(40), ("memory",))


def test_a_refusal_that_nobody_hears_ends_the_connection(host, guest, caplog):
    guest.send(Sent("SET_VRING_NUM", state(0, 3)))

    assert guest.cut_off
    assert "the connection ends: the daemon refuses SET_VRING_NUM" in caplog.text
    assert host.line is None


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", id="another protocol"),
        pytest.param(struct.pack("=III", 1, 1, 5000), id="too long"),
        pytest.param(struct.pack("=III", 1, 5, 0), id="a reply"),
        pytest.param(struct.pack("=III", 99, 1, 0) * 3, id="unknown"),
        pytest.param(struct.pack("=III", 11, 1, 8) + state(200, 0), id="no such queue"),
    ],
)
def test_noise_costs_another_guest_nothing(host, guest, tmp_path, noise):
    inflate(guest, 1)
    host.relay.add(tmp_path / "other.sock", host.back)
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(os.fspath(tmp_path / "other.sock"))
        other.sendall(noise)
        for _ in range(20):
            host.step(0.001)
        inflate(guest, 2)

    host.restart()
    inflate(guest, 3)

    assert host.policy.seen == inflated(1, 2, 3)


PAYLOADS = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([state(0, 1), number(0), number(0x100), traces.address(0)]),
    st.just(traces.table(region())),
    st.just(bytes(8) + region()),
)
SAYINGS = st.tuples(
    st.sampled_from([*CODES.values(), 0, 19, 99]),
    PAYLOADS,
    st.lists(st.sampled_from(["memory", "kick0", "channel"]), max_size=2),
    st.booleans(),
)
DEATH = None


@times(0.4)
@given(st.lists(st.one_of(SAYINGS, st.just(DEATH)), max_size=12))
def test_whatever_is_said_and_whoever_dies_nothing_fails_and_nothing_is_left(sayings):
    before = open_fds()
    with tempfile.TemporaryDirectory() as folder, failures() as failed:
        host = Relayed(Path(folder))
        guest = Guest(host)
        guest.settle()
        for saying in sayings:
            if saying is DEATH:
                host.die()
                host.start()
            elif host.line is not None:
                code, payload, fds, ack = saying
                head = struct.pack("=III", code, 1 | ack << 3, len(payload))
                guest.raw(head + payload, [guest.fd(name) for name in fds])
            guest.settle()
        guest.close()
        host.close()

    assert failed == []
    assert open_fds() == before


@contextlib.contextmanager
def failures():
    """Give a list of what only our own mistakes would leave in the log."""
    with mock.patch.object(line._log, "exception") as failed:
        yield failed.mock_calls


def test_one_that_does_not_read_is_let_go(host, guest):
    request = struct.pack("=III", CODES["GET_FEATURES"], 1, 0)
    with contextlib.suppress(BlockingIOError, BrokenPipeError):
        while host.line is not None:
            guest.socket.sendall(request * 100)
            guest.settle()

    host.until(lambda: host.line is None)


def test_memory_that_shrank_is_no_harm(host, guest, caplog):
    inflate(guest, 1)
    host.die()
    os.ftruncate(guest.fds["memory"], 0)

    host.start()

    host.until(lambda: "refuses SET_MEM_TABLE" in caplog.text)
    assert host.line is not None


def test_an_error_of_ours_ends_one_line_only(host, guest, caplog):
    host.line._talk.take = lambda _message: 1 // 0

    guest.send(*traces.UML_READ_TARGET)

    assert guest.cut_off
    assert "the connection ends because the relay failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("offset", [4095, 4096, -1, 2**64])
def test_what_a_file_has_not_got_cannot_be_seen(offset):
    fd = a_memfd(4096)

    assert len(line._look(fd, offset, 2)) < 2
    os.close(fd)
    assert line._look(fd, offset, 2) == b""


def test_nobody_waits_for_a_file_of_another_process(monkeypatch):
    fd = a_memfd(4096)
    assert line._look(fd, 0, 2) == bytes(2)

    monkeypatch.setattr(files, "_file_system", lambda _fd: files._FUSE)

    assert line._look(fd, 0, 2) == b""
    os.close(fd)


def test_nobody_waits_for_what_is_no_file():
    ours, theirs = os.pipe()

    assert line._look(ours, 0, 2) == b""
    os.close(ours)
    os.close(theirs)


# --- migration ----------------------------------------------------------------------


def test_a_transfer_has_failed_when_its_daemon_died(host, guest):
    guest.say(Sent("SET_PROTOCOL_FEATURES", number(traces.QEMU_PROTOCOL)))
    guest.say(*traces.UML_REMOVE[:2])
    ours, theirs = os.pipe()
    guest.give("pipe", ours, theirs)
    with mock.patch.object(host.daemon, "step"):  # it is not quick enough
        guest.send(Sent("SET_DEVICE_STATE_FD", state(0, 0), ("pipe",)))
    host.die()
    assert heard(host, guest) == [(CODES["SET_DEVICE_STATE_FD"], number(0x101))]

    host.start()
    guest.send(Sent("CHECK_DEVICE_STATE"))
    assert heard(host, guest) == [(CODES["CHECK_DEVICE_STATE"], number(1))]
