from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vhost_user_traces import CODES

from balloon_plugin.hosts.vhost_user import messages, payloads
from balloon_plugin.hosts.vhost_user.messages import (
    MAX_FDS,
    MAX_PAYLOAD,
    Assembler,
    BrokenStreamError,
    Message,
)
from balloon_plugin.layouts import VhostUserRequest


def raw(code, payload=b"", flags=1):
    return struct.pack("=III", code, flags, len(payload)) + payload


def feed(assembler, data, fds=()):
    """Feed as a connection does: never past the end of a message."""
    found = []
    while data:
        part, data = data[: assembler.wanted], data[assembler.wanted :]
        message = assembler.feed(part, fds)
        fds = ()
        if message is not None:
            found.append(message)
    return found


# --- the stream ---------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**32 - 1),
            st.binary(max_size=300),
            st.booleans(),
            st.integers(0, MAX_FDS),
        ),
        max_size=5,
    ),
    st.randoms(use_true_random=False),
)
def test_a_stream_is_cut_into_its_messages_however_it_arrives(sent, random):
    assembler, found, expected = Assembler(), [], []
    for code, payload, needs_reply, count in sent:
        fds = tuple(range(10, 10 + count))
        expected.append(Message(code, needs_reply, payload, fds))
        data = raw(code, payload, 1 | needs_reply << 3)
        while data:
            size = random.randint(1, assembler.wanted)
            message = assembler.feed(data[:size], fds)
            data, fds = data[size:], ()
            found += [message] if message else []

    assert found == expected


def test_descriptors_that_come_late_belong_to_the_message_too():
    assembler = Assembler()

    assert assembler.feed(raw(12, bytes(8))[:12], (7,)) is None
    assert assembler.wanted == 8
    assert assembler.fds == (7,)
    message = assembler.feed(bytes(8), (8,))

    assert message.fds == (7, 8)
    assert assembler.fds == ()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (raw(1, flags=0), "flags 0x0 are not of protocol version 1"),
        (raw(1, flags=2), "flags 0x2 are not of protocol version 1"),
        (raw(1, flags=1 | 4), "a reply came where a request was expected"),
        (raw(1, bytes(MAX_PAYLOAD + 1)), "longer than 4096"),
    ],
)
def test_a_stream_that_makes_no_sense_is_broken(data, sentence):
    with pytest.raises(BrokenStreamError, match=sentence):
        feed(Assembler(), data)


def test_replies_are_cut_one_after_the_other():
    assembler = Assembler(replies=True)

    found = feed(assembler, raw(1, b"one", 5) + raw(2, b"two", 5))

    assert found == [Message(1, False, b"one"), Message(2, False, b"two")]
    with pytest.raises(BrokenStreamError, match="a request came where a reply was"):
        feed(assembler, raw(1))


def test_a_payload_as_long_as_allowed_is_read():
    (message,) = feed(Assembler(), raw(99, bytes(MAX_PAYLOAD)))

    assert len(message.payload) == MAX_PAYLOAD


def test_too_many_descriptors_break_the_stream_and_are_known():
    assembler = Assembler()
    assembler.feed(b"\0", range(MAX_FDS))

    with pytest.raises(BrokenStreamError, match="more than 8 descriptors"):
        assembler.feed(b"\0", (50,))
    assert assembler.fds == (*range(MAX_FDS), 50)


def test_messages_have_names():
    assert Message(5, needs_reply=False).name == "SET_MEM_TABLE"
    assert Message(200, needs_reply=False).name == "request 200"


# --- what a request may carry -------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "size", "fds", "sentence"),
    [
        ("GET_FEATURES", 0, 0, ""),
        ("GET_FEATURES", 1, 0, "GET_FEATURES has 1 bytes, not 0"),
        ("SET_FEATURES", 4, 0, "SET_FEATURES has 4 bytes, not 8"),
        ("SET_OWNER", 0, 1, "SET_OWNER has 1 file descriptors, not 0"),
        ("SET_MEM_TABLE", 8, 0, ""),
        ("SET_MEM_TABLE", 8 + 8 * 32, 8, ""),
        ("SET_MEM_TABLE", 8 + 8 * 32 + 1, 8, "has 265 bytes, not 8 to 264"),
        ("SET_VRING_ADDR", 40, 0, ""),
        ("SET_VRING_KICK", 8, 0, ""),
        ("SET_VRING_KICK", 8, 1, ""),
        ("SET_VRING_KICK", 8, 2, "has 2 file descriptors, not 0 to 1"),
        ("SET_BACKEND_REQ_FD", 0, 0, "has 0 file descriptors, not 1"),
        ("GET_CONFIG", 11, 0, "has 11 bytes, not 12 to 268"),
        ("SET_CONFIG", 12 + 256, 0, ""),
        ("ADD_MEM_REG", 40, 1, ""),
        ("ADD_MEM_REG", 40, 0, "has 0 file descriptors, not 1"),
        ("REM_MEM_REG", 40, 0, ""),
        ("REM_MEM_REG", 40, 1, ""),
    ],
)
def test_each_request_has_bounds(request_, size, fds, sentence):
    message = Message(
        CODES[request_],
        needs_reply=False,
        payload=bytes(size),
        fds=tuple(range(fds)),
    )

    problem = messages.misfit(message)

    assert problem.endswith(sentence) if sentence else not problem


@pytest.mark.parametrize("name", CODES)
def test_names_have_the_numbers_of_the_specification(name):
    assert VhostUserRequest[name] == CODES[name]


# --- payloads -----------------------------------------------------------------------


def test_payloads_become_values():
    region = payloads.Region(1, 2, 3, 4)
    fields = struct.pack("=QQQQ", *region)

    assert payloads.number(struct.pack("=Q", 77)) == 77
    assert payloads.vring_state(struct.pack("=II", 1, 2)) == (1, 2)
    assert payloads.vring_address(struct.pack("=IIQQQQ", 1, 9, 2, 3, 4, 9)) == (
        payloads.VringAddress(queue=1, desc=2, used=3, avail=4, log=9)
    )
    assert payloads.region(bytes(8) + fields) == region
    assert payloads.memory_table(struct.pack("=II", 2, 0) + fields * 2) == (region,) * 2
    assert payloads.config_access(struct.pack("=III", 4, 2, 1) + b"ab") == (
        payloads.Access(4, 2, 1, b"ab")
    )


@pytest.mark.parametrize(
    ("value", "expected"), [(3, (3, True)), (0x103, (3, False)), (0x2FF, (255, True))]
)
def test_a_ring_may_have_no_descriptor(value, expected):
    assert payloads.ring_fd(struct.pack("=Q", value)) == expected


def test_a_table_may_have_room_left_but_not_less_than_it_says():
    region = struct.pack("=QQQQ", 1, 2, 3, 4)

    assert (
        len(payloads.memory_table(struct.pack("=II", 1, 0) + region + bytes(32))) == 1
    )
    assert payloads.memory_table(struct.pack("=II", 2, 0) + region + bytes(31)) is None
    assert payloads.memory_table(struct.pack("=II", 2**32 - 1, 0) + region) is None


def test_replies_have_the_flags_that_front_ends_insist_on():
    reply = messages.reply(17, payloads.pack_number(5))

    assert reply == struct.pack("=IIIQ", 17, 1 | 4, 8, 5)


def test_our_own_requests_want_no_reply():
    assert messages.backend_request(2) == struct.pack("=III", 2, 1, 0)


def test_values_become_payloads():
    assert payloads.pack_vring_state(1, 7) == struct.pack("=II", 1, 7)
    assert payloads.pack_config(4, 0, b"abcd") == struct.pack("=III", 4, 4, 0) + b"abcd"
