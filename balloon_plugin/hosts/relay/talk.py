"""What passes between one front end and its daemons, as values.

Pure: no socket, clock or log. A daemon is asked for one thing at a time, and asked to
acknowledge it (REPLY_ACK), whether or not the front end wants to know. So it is always
known what a daemon carried out, and of what the front end said only the last request
can be one that a daemon died over.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Final

from balloon_plugin.hosts.relay.said import Look, Said
from balloon_plugin.hosts.vhost_user import messages, payloads
from balloon_plugin.hosts.vhost_user.messages import (
    ANSWERED,
    Message,
    NonsenseError,
)
from balloon_plugin.hosts.vhost_user.requests import OFFERED_PROTOCOL, Requests
from balloon_plugin.layouts import (
    VHOST_USER_U64,
    VHOST_VRING_STATE,
    VhostUserProtocolFeature,
    VhostUserRequest,
)

__all__ = ["MAX_DEATHS", "Introduction", "Talk", "UnfitError"]

Introduction = Generator[Message, Message, None]
"""Yields requests to a daemon, and is sent what it answers to each."""

MAX_DEATHS: Final = 5
"""Daemons that may be lost over one request of a front end.

A daemon that happens to be killed just then is one, or two; one that ends the
connection because of the request, or dies of it, would do so for ever.
"""

_R = VhostUserRequest
_REPLY_ACK: Final = VhostUserProtocolFeature.REPLY_ACK.mask
_FAILED: Final = 0x101
"""Of SET_DEVICE_STATE_FD: no file descriptor is needed, and it did not succeed."""


class UnfitError(Exception):
    """A daemon is of no use to the front end; the text is a sentence."""


class Talk:
    """One front end's talk with one daemon after another.

    :ivar said: what holds of it.
    """

    def __init__(self) -> None:
        self.said = Said()
        self._waits = False
        self._deaths = 0

    # --- to a daemon that has just come ---------------------------------------------

    def introduce(self, look: Look) -> Introduction:
        """Tell a daemon all that holds, after making sure that it can do as much.

        :param look: at the files that came with memory.
        :raises UnfitError: if it cannot.
        """
        offered = _number((yield _ask(_R.GET_FEATURES)))
        _insist("features", self.said.features & ~offered)
        offered = _number((yield _ask(_R.GET_PROTOCOL_FEATURES)))
        needed = self.said.protocol_features | _REPLY_ACK
        _insist("protocol features", needed & ~offered)
        agreed = _ask(_R.SET_PROTOCOL_FEATURES, payloads.pack_number(needed))
        for message in (agreed, *self.said.again(look)):
            answer = yield message
            if not _is_done(message, answer):
                raise UnfitError(
                    f"the daemon refuses {message.name}, which one before carried out: "
                    "its log says why"
                )

    # --- what the front end says ----------------------------------------------------

    def take(self, message: Message) -> Message:
        """Return a request of the front end as it is passed on."""
        self._deaths = 0
        if message.code != _R.SET_PROTOCOL_FEATURES or messages.misfit(message):
            return message
        bits = payloads.number(message.payload)
        self._waits = bool(bits & _REPLY_ACK)
        return replace(message, payload=payloads.pack_number(bits | _REPLY_ACK))

    def answer(self, message: Message, answer: Message) -> bytes:
        """Return the reply to the front end, or nothing if it wants none.

        :param answer: the daemon's; its file descriptors go with the reply.
        :raises NonsenseError: if the front end cannot be told that it was refused.
        :raises UnfitError: if the daemon's answer is none.
        """
        payload = answer.payload
        if _is_done(message, answer):
            self.said.note(message, payload)
        elif not message.needs_reply and message.code in Requests.HANDLERS:
            raise NonsenseError(f"the daemon refuses {message.name}")
        if message.code == _R.GET_PROTOCOL_FEATURES:
            # What we do not know, we could not say again.
            payload = payloads.pack_number(_number(answer) & OFFERED_PROTOCOL)
        wanted = message.needs_reply or message.code in ANSWERED
        return messages.reply(message.code, payload) if wanted else b""

    def check(self) -> None:
        """Make sure that the front end can go on with another daemon.

        It has to wait until a queue that it stops has stopped. One that does not may
        use its memory for something else while there is no daemon, and the next would
        write to it.

        :raises NonsenseError: if it cannot.
        """
        if self.said.kicks and not self._waits:
            raise NonsenseError(
                "the daemon was lost, and no other can take over queues of a front end "
                "that waits for no answers (REPLY_ACK)"
            )

    def died(self, message: Message) -> bytes:
        """Return what to reply to a request that a daemon was lost over.

        Nothing if it is to be said again to the next one.

        :raises NonsenseError: if too many were.
        """
        if message.code == _R.SET_DEVICE_STATE_FD:
            # Half a state may have gone through the pipe.
            return messages.reply(message.code, payloads.pack_number(_FAILED))
        self._deaths += 1
        if self._deaths == MAX_DEATHS:
            raise NonsenseError(f"{MAX_DEATHS} daemons were lost over {message.name}")
        return b""


def _ask(code: VhostUserRequest, payload: bytes = b"") -> Message:
    return Message(code, code not in ANSWERED, payload)


def _insist(what: str, missing: int) -> None:
    if missing:
        raise UnfitError(
            f"the daemon has not all {what} that are in use (without {missing:#x}): "
            "start one that offers as much as the one before"
        )


def _is_done(message: Message, answer: Message) -> bool:
    """Return whether an answer says that the request was carried out.

    :raises UnfitError: if it is none.
    """
    if message.code == _R.GET_VRING_BASE:
        _check_size(answer, VHOST_VRING_STATE.size)
    return message.code in ANSWERED or _number(answer) == 0


def _number(answer: Message) -> int:
    _check_size(answer, VHOST_USER_U64.size)
    return payloads.number(answer.payload)


def _check_size(answer: Message, size: int) -> None:
    if len(answer.payload) != size:
        raise UnfitError(f"the daemon's reply to {answer.name} is not of {size} bytes")
