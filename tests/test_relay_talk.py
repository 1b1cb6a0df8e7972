"""What the relay tells a daemon that has just come, and a front end that waits."""

from __future__ import annotations

import struct

import pytest
import vhost_user_traces as traces
from vhost_user_traces import CODES, MODERN, QEMU_PROTOCOL, Sent, number, state

from balloon_plugin.hosts.relay.talk import MAX_DEATHS, Talk, UnfitError
from balloon_plugin.hosts.vhost_user.messages import Message, NonsenseError
from balloon_plugin.hosts.vhost_user.requests import OFFERED_PROTOCOL

REPLY_ACK = 1 << 3
ANYTHING = 2**64 - 1
ANSWERS = {"GET_FEATURES": ANYTHING, "GET_PROTOCOL_FEATURES": ANYTHING}


def message(sent):
    return Message(CODES[sent.request], sent.ack, sent.payload, sent.fds)


def reply(request, payload):
    return Message(CODES[request], False, payload)


def sent_back(request, payload):
    return struct.pack("=III", CODES[request], 5, len(payload)) + payload


def tell(talk, request, payload=b"", answer=0, *, ack=False):
    """Let a daemon answer a request; return the reply to the front end."""
    taken = talk.take(message(Sent(request, payload, ack=ack)))
    return talk.answer(taken, reply(request, number(answer)))


def introduced(talk, **answers):
    """Return what a daemon is told that answers so."""
    names = {code: name for name, code in CODES.items()}
    answers, told = {**ANSWERS, **answers}, []
    introduction = talk.introduce(lambda *_: b"")
    asked = next(introduction)
    while True:
        name = names[asked.code]
        told.append((name, asked.payload))
        answer = answers.get(name, 0)
        payload = answer if isinstance(answer, bytes) else number(answer)
        try:
            asked = introduction.send(reply(name, payload))
        except StopIteration:
            return told


# --- a daemon that has just come ----------------------------------------------------


HANDSHAKE = [
    ("GET_FEATURES", b""),
    ("GET_PROTOCOL_FEATURES", b""),
    ("SET_PROTOCOL_FEATURES", number(REPLY_ACK)),
]


def test_the_first_daemon_is_told_nothing_but_to_acknowledge():
    assert introduced(Talk()) == HANDSHAKE


def test_a_daemon_is_told_what_holds():
    talk = Talk()
    tell(talk, "SET_PROTOCOL_FEATURES", number(1 << 9))
    tell(talk, "SET_FEATURES", number(MODERN))
    tell(talk, "SET_OWNER")

    assert introduced(talk)[2:] == [
        ("SET_PROTOCOL_FEATURES", number(1 << 9 | REPLY_ACK)),
        ("SET_OWNER", b""),
        ("SET_FEATURES", number(MODERN)),
    ]


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"GET_FEATURES": MODERN & ~(1 << 32)}, "not all features .*t 0x100000000."),
        (
            {"GET_PROTOCOL_FEATURES": REPLY_ACK},
            "protocol features .* .without 0x200.",
        ),
        ({"GET_PROTOCOL_FEATURES": 1 << 9}, "protocol features .* .without 0x8."),
        ({"SET_PROTOCOL_FEATURES": 1}, "refuses SET_PROTOCOL_FEATURES, which one"),
        ({"SET_FEATURES": 1}, "refuses SET_FEATURES, which .*: its log says"),
        ({"GET_FEATURES": b""}, "reply to GET_FEATURES is not of 8 bytes"),
        ({"SET_FEATURES": b""}, "reply to SET_FEATURES is not of 8 bytes"),
    ],
)
def test_one_that_cannot_do_as_much_is_of_no_use(answers, why):
    talk = Talk()
    tell(talk, "SET_PROTOCOL_FEATURES", number(1 << 9))
    tell(talk, "SET_FEATURES", number(MODERN))

    with pytest.raises(UnfitError, match=why):
        introduced(talk, **answers)

    # The next one may be.
    assert len(introduced(talk)) == 4


# --- what the front end says --------------------------------------------------------


def test_a_daemon_is_to_acknowledge_whatever_the_front_end_agrees_on():
    taken = Talk().take(
        message(Sent("SET_PROTOCOL_FEATURES", number(1 << 9), ack=True))
    )

    assert taken.payload == number(1 << 9 | REPLY_ACK)
    assert taken.needs_reply


def test_nonsense_is_left_to_the_daemon():
    nonsense = message(Sent("SET_PROTOCOL_FEATURES", b"what?"))

    assert Talk().take(nonsense) == nonsense


def test_only_who_asked_is_told():
    talk = Talk()

    assert tell(talk, "SET_OWNER") == b""
    assert tell(talk, "SET_OWNER", ack=True) == sent_back("SET_OWNER", number(0))


def test_replies_pass_as_they_are():
    assert tell(Talk(), "GET_FEATURES", answer=77) == sent_back(
        "GET_FEATURES", number(77)
    )


def test_protocol_features_of_tomorrow_are_hidden():
    assert tell(Talk(), "GET_PROTOCOL_FEATURES", answer=ANYTHING) == sent_back(
        "GET_PROTOCOL_FEATURES", number(OFFERED_PROTOCOL)
    )
    assert OFFERED_PROTOCOL == QEMU_PROTOCOL


def test_what_was_refused_does_not_hold():
    talk = Talk()

    refusal = tell(talk, "SET_FEATURES", number(MODERN), answer=1, ack=True)

    assert refusal == sent_back("SET_FEATURES", number(1))
    assert introduced(talk) == HANDSHAKE


def test_who_cannot_be_told_that_it_was_refused_is_at_its_end():
    with pytest.raises(NonsenseError, match="the daemon refuses SET_FEATURES"):
        tell(Talk(), "SET_FEATURES", number(MODERN), answer=1)


def test_what_no_daemon_knows_is_nothing():
    unknown = Message(99, False)

    assert Talk().answer(unknown, Message(99, False, number(1))) == b""


def test_where_a_queue_stands_has_a_size():
    with pytest.raises(UnfitError, match="reply to GET_VRING_BASE is not of 8 bytes"):
        Talk().answer(
            message(Sent("GET_VRING_BASE", state(0, 0))), reply("GET_VRING_BASE", b"?")
        )


# --- when a daemon was lost ---------------------------------------------------------


@pytest.mark.parametrize("waits", [True, False])
def test_who_waits_for_no_answers_has_no_queues_on_another_daemon(waits):
    talk = Talk()
    tell(talk, "SET_PROTOCOL_FEATURES", number(1 << 9 | waits * REPLY_ACK))
    talk.check()
    tell(talk, "SET_VRING_KICK", number(0x100))

    if waits:
        talk.check()
    else:
        with pytest.raises(NonsenseError, match="waits for no answers"):
            talk.check()
    tell(talk, "RESET_DEVICE")
    talk.check()


# --- a request that a daemon died over ----------------------------------------------


def test_it_is_said_to_the_next_one_but_not_for_ever():
    talk = Talk()
    for _ in range(2):
        request = talk.take(message(Sent("GET_CONFIG", traces.config(0, bytes(4)))))

        assert [talk.died(request) for _ in range(MAX_DEATHS - 1)] == [b""] * 4
        with pytest.raises(NonsenseError, match="5 daemons were lost over GET_CONFIG"):
            talk.died(request)


def test_a_transfer_has_failed():
    transfer = message(Sent("SET_DEVICE_STATE_FD", state(0, 0), (3,)))

    assert Talk().died(transfer) == sent_back("SET_DEVICE_STATE_FD", number(0x101))
