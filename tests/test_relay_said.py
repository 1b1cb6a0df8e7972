"""What is said again after a death brings the next daemon to where the last one was."""

from __future__ import annotations

import struct
import sys

import pytest
import vhost_user_traces as traces
from described_daemon import LOG_ALL, Daemon
from examples import times
from hypothesis import assume, given
from hypothesis import strategies as st
from vhost_user_traces import (
    CODES,
    GUEST_RAM,
    LEGACY,
    MODERN,
    USER_RAM,
    Sent,
    number,
    region,
    state,
    table,
)

from balloon_plugin.hosts.relay.said import Said
from balloon_plugin.hosts.relay.talk import Talk
from balloon_plugin.hosts.vhost_user.messages import MAX_FDS, Message, NonsenseError

NAMES = {code: name for name, code in CODES.items()}
PACKED = 1 << 34
HIGH = GUEST_RAM + traces.RAM_SIZE
PROTOCOL = Sent("SET_PROTOCOL_FEATURES", number(traces.QEMU_PROTOCOL))


def message(sent):
    """Return a message; its descriptors are given by number."""
    return Message(CODES[sent.request], sent.ack, sent.payload, sent.fds)


def blind(_fd, _offset, _size):
    return b""


def introduced(talk, look=blind):
    """Return a new daemon that was told all."""
    daemon = Daemon()
    introduction = talk.introduce(look)
    asked = next(introduction)
    while asked is not None:
        try:
            asked = introduction.send(daemon.ask(asked))
        except StopIteration:
            asked = None
    return daemon


def after(*sent):
    """Return a daemon that was told this, and its successor."""
    talk = Talk()
    daemon = introduced(talk)
    for each in sent:
        if isinstance(each, Sent):
            said = talk.take(message(each))
            reply = daemon.ask(said)
            if reply is None:
                break  # the connection is at its end
            if talk.answer(said, reply)[12:] == number(1):
                continue
        elif each in daemon.running:
            daemon.serve(each, 7)
    return daemon, introduced(talk, daemon.look)


# --- whatever is said ---------------------------------------------------------------


QUEUES = st.sampled_from([0, 1])
FDS = st.integers(100, 10_000)
MEMORY = Sent("SET_MEM_TABLE", table(region()), (10,), ack=True)
MORE = region(HIGH, user=USER_RAM + traces.RAM_SIZE, offset=0)


def of_queue(request, *values):
    return st.builds(
        lambda queue, value: Sent(request, state(queue, value), ack=True),
        QUEUES,
        st.sampled_from(values),
    )


def of_device(request, *values):
    return st.sampled_from([Sent(request, number(value), ack=True) for value in values])


def with_fd(request, payload=b""):
    return st.builds(lambda fd: Sent(request, payload, (fd,), ack=True), FDS)


def notifier(request):
    return st.builds(
        lambda queue, fd: Sent(request, number(queue), (fd,), ack=True), QUEUES, FDS
    ) | st.builds(lambda queue: Sent(request, number(queue | 0x100), ack=True), QUEUES)


ANYTHING = st.one_of(
    st.just(Sent("SET_OWNER", ack=True)),
    of_device("SET_FEATURES", LEGACY, MODERN, MODERN | LOG_ALL),
    with_fd("SET_BACKEND_REQ_FD"),
    st.sampled_from(
        [
            MEMORY,
            Sent("SET_MEM_TABLE", table(region(), MORE), (11, 12), ack=True),
            Sent("ADD_MEM_REG", bytes(8) + MORE, (13,), ack=True),
            Sent("REM_MEM_REG", bytes(8) + MORE, ack=True),
        ]
    ),
    with_fd("SET_LOG_BASE", struct.pack("=QQ", 4096, 0)),
    with_fd("SET_LOG_FD"),
    with_fd("SET_INFLIGHT_FD", struct.pack("=QQHH", 8192, 0, 2, 128)),
    of_queue("SET_VRING_NUM", 128, 64, 3),
    of_queue("SET_VRING_BASE", 0, 9, 0x1_0000),
    of_queue("SET_VRING_ENDIAN", 0, 1, 2),
    of_queue("SET_VRING_ENABLE", 0, 1),
    of_queue("GET_VRING_BASE", 0),
    st.builds(
        lambda queue: Sent("SET_VRING_ADDR", traces.address(queue), ack=True), QUEUES
    ),
    *map(notifier, ("SET_VRING_KICK", "SET_VRING_CALL", "SET_VRING_ERR")),
    of_device("SET_STATUS", 0, 8, 15),
    st.sampled_from([Sent("RESET_OWNER", ack=True), Sent("RESET_DEVICE", ack=True)]),
    QUEUES,  # is served meanwhile
)


def uml():
    """Return what starts both queues, with descriptors by number."""
    fds = {"memory": 3, "kick0": 4, "kick1": 5, "call0": 6, "call1": 7}
    return [
        sent._replace(fds=tuple(fds[name] for name in sent.fds))
        for sent in traces.uml_probe()
    ]


# A busy machine is no failure.
@times(3)
@given(st.sampled_from([[], uml()]), st.lists(ANYTHING, max_size=25))
def test_the_next_daemon_is_where_the_last_one_was(begin, sent):
    before, now = after(PROTOCOL, MEMORY, *begin, *sent)
    assume(before.in_order)

    assert now.described() == before.described()


# --- memory -------------------------------------------------------------------------


def noted(*sent):
    said = Said()
    for each in sent:
        said.note(message(each), number(0))
    return said


def again(said, look=blind):
    """Return what is said again, as (request, payload, descriptors)."""
    return [(NAMES[each.code], each.payload, each.fds) for each in said.again(look)]


def added(at, fd):
    one = region(GUEST_RAM + at * 4096, 4096, USER_RAM + at * 4096, 0)
    return Sent("ADD_MEM_REG", bytes(8) + one, (fd,))


def test_of_memory_the_live_set_is_said_again():
    said = noted(
        Sent("SET_MEM_TABLE", table(region(), MORE), (3, 4)),
        added(1 << 20, 5),
        Sent("REM_MEM_REG", bytes(8) + region()),
    )

    one = added(1 << 20, 5).payload[8:]
    assert again(said) == [("SET_MEM_TABLE", table(MORE, one), (4, 5))]
    assert said.fds == {4, 5}


def test_more_regions_than_a_table_has_come_one_by_one():
    sent = [added(at, 100 + at) for at in range(MAX_FDS + 1)]

    assert again(noted(*sent)) == [tuple(each[:3]) for each in sent]


def test_a_table_takes_the_place_of_what_was_there():
    said = noted(added(0, 3), added(1, 4), MEMORY)

    assert said.fds == {10}
    assert again(noted(added(0, 3), Sent("SET_MEM_TABLE", table()))) == []


def test_it_remembers_no_more_regions_than_a_daemon_of_ours_takes():
    said = noted(*(added(at, at) for at in range(128)))

    with pytest.raises(NonsenseError, match="more than 128 regions"):
        said.note(message(added(128, 128)), b"")


def test_descriptors_that_are_of_no_more_use_are_let_go():
    said = noted(
        Sent("SET_VRING_CALL", number(0), (3,)),
        Sent("SET_VRING_CALL", number(1), (4,)),
        Sent("SET_VRING_CALL", number(0), (5,)),
        Sent("SET_LOG_FD", b"", (6,)),
        Sent("SET_VRING_CALL", number(1 | 0x100)),
    )

    assert said.fds == {5, 6}


# --- positions ----------------------------------------------------------------------


def started(features=MODERN, *more):
    """Return what a queue says that runs from position 5."""
    return [
        Sent("SET_FEATURES", number(features)),
        MEMORY,
        *more,
        Sent("SET_VRING_NUM", state(0, 128)),
        Sent("SET_VRING_BASE", state(0, 5)),
        Sent("SET_VRING_ADDR", traces.address(0)),
        Sent("SET_VRING_KICK", number(0), (4,)),
        Sent("SET_VRING_ENABLE", state(0, 1)),
    ]


def base_of(said, look):
    (base,) = [
        payload
        for name, payload, _ in again(said, look)
        if name == "SET_VRING_BASE" and payload[0] == 0
    ]
    return struct.unpack("=II", base)[1]


def two_bytes(fd, offset, size):
    """Return 01 02 of where the index of the used ring is."""
    assert (fd, offset, size) == (10, traces.FILE_AT + traces.ring_at(0)[2] + 2, 2)
    return b"\1\2"


BIG = Sent("SET_VRING_ENDIAN", state(0, 1))
NATIVE = 0x0201 if sys.byteorder == "little" else 0x0102


@pytest.mark.parametrize(
    ("features", "more", "base"),
    [
        (MODERN, [], 0x0201),
        (MODERN, [BIG], 0x0201),
        (LEGACY, [], NATIVE),
        (LEGACY, [BIG], 0x0102),
        (LEGACY, [Sent("SET_VRING_ENDIAN", state(0, 0))], 0x0201),
    ],
)
def test_a_queue_stands_where_its_used_ring_says(features, more, base):
    assert base_of(noted(*started(features, *more)), two_bytes) == base


def test_a_packed_queue_is_left_to_the_daemon():
    assert base_of(noted(*started(MODERN | PACKED)), blind) == 0x8000_8000


def test_a_queue_that_has_not_started_stands_where_it_was_said():
    assert base_of(noted(*started()[:-1]), two_bytes) == 5


def test_a_queue_that_was_stopped_stands_where_the_daemon_said():
    said = noted(*started())
    said.note(message(Sent("GET_VRING_BASE", state(0, 0))), state(0, 77))

    assert base_of(said, two_bytes) == 77
    assert "SET_VRING_KICK" not in [name for name, _, _ in again(said)]


def test_without_the_feature_a_queue_needs_not_be_enabled():
    assert base_of(noted(*started(1 << 32)[:-1]), two_bytes) == 0x0201


@pytest.mark.parametrize(
    "more",
    [
        [],
        [Sent("SET_MEM_TABLE", table(MORE), (10,))],
        [Sent("SET_MEM_TABLE", table())],
    ],
)
def test_where_nothing_can_be_seen_the_last_word_holds(more):
    assert base_of(noted(*started(), *more), blind) == 5


def test_a_queue_need_not_be_told_where_to_begin():
    sent = [each for each in started() if each.request != "SET_VRING_BASE"]

    assert base_of(noted(*sent), two_bytes) == 0x0201
    assert "SET_VRING_BASE" not in [name for name, _, _ in again(noted(*sent[:-1]))]


def test_a_reset_device_has_forgotten_where_it_was():
    again_ = [each for each in started()[2:-2] if each.request != "SET_VRING_BASE"]
    said = noted(*started(), Sent("RESET_DEVICE"), *again_)

    assert "SET_VRING_BASE" not in [name for name, _, _ in again(said, two_bytes)]


def test_a_queue_without_addresses_is_where_it_was_left():
    ended = [Sent("RESET_OWNER"), Sent("SET_VRING_ENABLE", state(0, 0))]

    assert base_of(noted(*started(), *ended), two_bytes) == 0x0201


# --- what ends ----------------------------------------------------------------------


RINGS = ["SET_VRING_NUM", "SET_VRING_ADDR"]
BEGIN = ["SET_FEATURES", "SET_MEM_TABLE", "SET_VRING_BASE", "SET_VRING_CALL"]
STARTS = ["SET_VRING_KICK", "SET_VRING_ENABLE"]


@pytest.mark.parametrize(
    ("end", "begin", "left"),
    [
        (Sent("SET_STATUS", number(8)), BEGIN, [*RINGS, *STARTS, "SET_STATUS"]),
        (Sent("SET_STATUS", number(0)), BEGIN, [*RINGS, "SET_VRING_ENABLE"]),
        (Sent("RESET_OWNER"), BEGIN, [*RINGS, "SET_VRING_ENABLE", "SET_STATUS"]),
        (Sent("RESET_DEVICE"), ["SET_MEM_TABLE", "SET_VRING_CALL"], []),
    ],
)
def test_what_ends_a_queue_or_a_driver_is_not_undone(end, begin, left):
    call = Sent("SET_VRING_CALL", number(0), (7,))
    status = Sent("SET_STATUS", number(15))

    said = again(noted(*started(), call, status, end))

    assert [name for name, _, _ in said] == begin + left


# --- what makes no sense ------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (Sent("SET_FEATURES", b"\0"), "SET_FEATURES has 1 bytes, not 8"),
        (Sent("SET_MEM_TABLE", table(region())), "not a descriptor for each region"),
        (Sent("SET_MEM_TABLE", number(1), (3,)), "not a descriptor for each region"),
        (Sent("SET_VRING_NUM", state(5, 1)), "at most 5 queues, not 5"),
        (Sent("SET_VRING_KICK", number(255), (3,)), "at most 5 queues, not 255"),
        (Sent("SET_VRING_ADDR", traces.address(9)), "at most 5 queues, not 9"),
    ],
)
def test_what_a_daemon_should_not_have_taken_is_not_remembered(sent, why):
    said = Said()

    with pytest.raises(NonsenseError, match=why):
        said.note(message(sent), b"")

    assert again(said) == []


@pytest.mark.parametrize("request_", ["GET_FEATURES", "SET_CONFIG", "GET_INFLIGHT_FD"])
def test_what_sets_nothing_up_is_not_remembered(request_):
    assert again(noted(Sent(request_, b"anything"))) == []
