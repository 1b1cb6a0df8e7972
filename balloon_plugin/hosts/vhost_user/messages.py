"""vhost-user messages: a byte stream cut into messages, and what each may carry.

Knows how long each request may be and how many file descriptors it may carry; knows
nothing of what a request means. Descriptors are numbers here, never touched. Sections
in quotes are those of QEMU's ``docs/interop/vhost-user.rst``, the specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from balloon_plugin.hosts.vhost_user.payloads import NATIVE
from balloon_plugin.layouts import (
    VHOST_USER_CONFIG,
    VHOST_USER_HEADER,
    VHOST_USER_INFLIGHT,
    VHOST_USER_LOG,
    VHOST_USER_MAX_CONFIG_SIZE,
    VHOST_USER_MEMORY,
    VHOST_USER_MEMORY_BASELINE_NREGIONS,
    VHOST_USER_MEMORY_REGION,
    VHOST_USER_NEED_REPLY_MASK,
    VHOST_USER_REPLY_MASK,
    VHOST_USER_SINGLE_MEMORY_REGION,
    VHOST_USER_TRANSFER_DEVICE_STATE,
    VHOST_USER_U64,
    VHOST_USER_VERSION,
    VHOST_USER_VERSION_MASK,
    VHOST_VRING_ADDR,
    VHOST_VRING_STATE,
    Layout,
    VhostUserBackendRequest,
    VhostUserRequest,
)

__all__ = [
    "ANSWERED",
    "MAX_FDS",
    "MAX_PAYLOAD",
    "Assembler",
    "BrokenStreamError",
    "Message",
    "NonsenseError",
    "backend_request",
    "misfit",
    "reply",
    "request",
]

MAX_PAYLOAD: Final = 4096
"""Bytes of a payload; a longer one ends the connection, for it cannot be read past.

Fifteen times the longest request that we answer, so that requests which we do not know
are read to their end and refused.
"""

MAX_FDS: Final = VHOST_USER_MEMORY_BASELINE_NREGIONS
"""File descriptors with one message: a memory table brings the most, one a region."""

_header = VHOST_USER_HEADER.of(NATIVE)


# --- what a request may carry -------------------------------------------------------


class _Form(NamedTuple):
    """Bounds of one request, each as (least, most)."""

    payload: tuple[int, int]
    fds: tuple[int, int] = (0, 0)


def _exactly(layout: Layout, fds: tuple[int, int] = (0, 0)) -> _Form:
    return _Form((layout.size, layout.size), fds)


_EMPTY = _Form((0, 0))
_NUMBER = _exactly(VHOST_USER_U64)
_STATE = _exactly(VHOST_VRING_STATE)
_RING_FD = _exactly(VHOST_USER_U64, (0, 1))
_CONFIG = _Form(
    (VHOST_USER_CONFIG.size, VHOST_USER_CONFIG.size + VHOST_USER_MAX_CONFIG_SIZE)
)
_MEMORY_TABLE = _Form(
    (
        VHOST_USER_MEMORY.size,
        VHOST_USER_MEMORY.size + MAX_FDS * VHOST_USER_MEMORY_REGION.size,
    ),
    (0, MAX_FDS),
)
# The text has four fields; in C there are four bytes of padding after them.
_INFLIGHT_SIZES = VHOST_USER_INFLIGHT.size, VHOST_USER_INFLIGHT.size + 4
_R = VhostUserRequest

_FORMS: Final = {
    _R.GET_FEATURES: _EMPTY,
    _R.SET_FEATURES: _NUMBER,
    _R.SET_OWNER: _EMPTY,
    _R.RESET_OWNER: _EMPTY,
    # User-Mode Linux sends room for more regions than it fills in.
    _R.SET_MEM_TABLE: _MEMORY_TABLE,
    _R.SET_LOG_BASE: _exactly(VHOST_USER_LOG, (1, 1)),
    # The text has no payload here; a number, as most messages have, is no harm.
    _R.SET_LOG_FD: _Form((0, VHOST_USER_U64.size), (1, 1)),
    _R.SET_VRING_NUM: _STATE,
    _R.SET_VRING_ADDR: _exactly(VHOST_VRING_ADDR),
    _R.SET_VRING_BASE: _STATE,
    _R.GET_VRING_BASE: _STATE,
    _R.SET_VRING_KICK: _RING_FD,
    _R.SET_VRING_CALL: _RING_FD,
    _R.SET_VRING_ERR: _RING_FD,
    _R.GET_PROTOCOL_FEATURES: _EMPTY,
    _R.SET_PROTOCOL_FEATURES: _NUMBER,
    _R.GET_QUEUE_NUM: _EMPTY,
    _R.SET_VRING_ENABLE: _STATE,
    _R.SET_BACKEND_REQ_FD: _Form((0, 0), (1, 1)),
    _R.SET_VRING_ENDIAN: _STATE,
    _R.GET_CONFIG: _CONFIG,
    _R.SET_CONFIG: _CONFIG,
    _R.GET_INFLIGHT_FD: _Form(_INFLIGHT_SIZES),
    _R.SET_INFLIGHT_FD: _Form(_INFLIGHT_SIZES, (1, 1)),
    _R.RESET_DEVICE: _EMPTY,
    _R.GET_MAX_MEM_SLOTS: _EMPTY,
    _R.ADD_MEM_REG: _exactly(VHOST_USER_SINGLE_MEMORY_REGION, (1, 1)),
    # "For compatibility with existing incorrect implementations, the back-end MAY
    # accept messages with one file descriptor", which is closed unused.
    _R.REM_MEM_REG: _exactly(VHOST_USER_SINGLE_MEMORY_REGION, (0, 1)),
    _R.SET_STATUS: _NUMBER,
    _R.GET_STATUS: _EMPTY,
    _R.SET_DEVICE_STATE_FD: _exactly(VHOST_USER_TRANSFER_DEVICE_STATE, (1, 1)),
    _R.CHECK_DEVICE_STATE: _EMPTY,
}
"""Every request that is understood; :mod:`requests` handles the same."""

ANSWERED: Final = frozenset(
    {
        _R.GET_FEATURES,
        _R.SET_LOG_BASE,
        _R.GET_VRING_BASE,
        _R.GET_PROTOCOL_FEATURES,
        _R.GET_QUEUE_NUM,
        _R.GET_CONFIG,
        _R.GET_INFLIGHT_FD,
        _R.GET_MAX_MEM_SLOTS,
        _R.GET_STATUS,
        _R.SET_DEVICE_STATE_FD,
        _R.CHECK_DEVICE_STATE,
    }
)
"""Requests with a reply of their own: need_reply "brings no behavioural change".

They cannot be acknowledged, nor refused but by ending the connection.
"""


@dataclass(frozen=True, slots=True)
class Message:
    """One whole message of the front end.

    :ivar code: its request as a number, known or not.
    :ivar needs_reply: whether the front end waits for an acknowledgement (REPLY_ACK).
    :ivar payload: its body.
    :ivar fds: the file descriptors that came with it.
    """

    code: int
    needs_reply: bool
    payload: bytes = b""
    fds: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The request by name, or by number if it has none."""
        try:
            return VhostUserRequest(self.code).name
        except ValueError:
            return f"request {self.code}"


def misfit(message: Message) -> str:
    """Return what is wrong with the size of a known request, a sentence, or nothing."""
    form = _FORMS[VhostUserRequest(message.code)]
    if not form.payload[0] <= len(message.payload) <= form.payload[1]:
        wanted = _span(form.payload)
        return f"{message.name} has {len(message.payload)} bytes, not {wanted}"
    if not form.fds[0] <= len(message.fds) <= form.fds[1]:
        wanted = _span(form.fds)
        return f"{message.name} has {len(message.fds)} file descriptors, not {wanted}"
    return ""


def _span(bounds: tuple[int, int]) -> str:
    least, most = bounds
    return str(least) if least == most else f"{least} to {most}"


# --- the stream ---------------------------------------------------------------------


class BrokenStreamError(Exception):
    """The stream cannot be cut into messages any more; the connection is lost."""


class NonsenseError(Exception):
    """A request makes no sense; the text is a sentence that says why."""


class Assembler:
    """The byte stream of one side, cut into messages.

    File descriptors belong to the message with whose bytes they arrive. So nobody may
    read past the end of a message: read :attr:`wanted` bytes, then :meth:`feed` them.

    :param replies: whether it is that of a back end, and all are replies.
    """

    def __init__(self, *, replies: bool = False) -> None:
        self._replies = replies
        self._data = bytearray()
        self._fds: list[int] = []
        self._size = _header.size

    @property
    def wanted(self) -> int:
        """How many bytes to read next, 1 or more."""
        return self._size - len(self._data)

    @property
    def fds(self) -> tuple[int, ...]:
        """File descriptors of the message that is not whole yet."""
        return tuple(self._fds)

    def feed(self, data: bytes, fds: Sequence[int] = ()) -> Message | None:
        """Take bytes that were read, and return the message that they complete.

        :raises BrokenStreamError: with a sentence, if the stream makes no sense.
        """
        self._data += data
        self._fds += fds
        if len(self._fds) > MAX_FDS:
            raise BrokenStreamError(f"a message brings more than {MAX_FDS} descriptors")
        if len(self._data) == _header.size:
            self._begin()
        return None if self.wanted else self._finish()

    def _begin(self) -> None:
        _code, flags, size = _header.unpack(self._data)
        if flags & VHOST_USER_VERSION_MASK != VHOST_USER_VERSION:
            raise BrokenStreamError(f"flags {flags:#x} are not of protocol version 1")
        if bool(flags & VHOST_USER_REPLY_MASK) != self._replies:
            came = "a request" if self._replies else "a reply"
            wanted = "a reply" if self._replies else "a request"
            raise BrokenStreamError(f"{came} came where {wanted} was expected")
        if size > MAX_PAYLOAD:
            raise BrokenStreamError(
                f"a payload of {size} bytes is longer than {MAX_PAYLOAD}"
            )
        self._size = _header.size + size

    def _finish(self) -> Message:
        code, flags, _size = _header.unpack_from(self._data)
        message = Message(
            code,
            bool(flags & VHOST_USER_NEED_REPLY_MASK),
            bytes(self._data[_header.size :]),
            tuple(self._fds),
        )
        self.__init__(replies=self._replies)  # type: ignore[misc]
        return message


# --- what is sent -------------------------------------------------------------------


def request(code: int, payload: bytes) -> bytes:
    """Return a request to a back end, which is asked to acknowledge it."""
    flags = VHOST_USER_VERSION | VHOST_USER_NEED_REPLY_MASK
    return _header.pack(code, flags, len(payload)) + payload


def reply(code: int, payload: bytes) -> bytes:
    """Return the reply to request ``code``; front ends insist on just these flags."""
    flags = VHOST_USER_VERSION | VHOST_USER_REPLY_MASK
    return _header.pack(code, flags, len(payload)) + payload


def backend_request(code: VhostUserBackendRequest) -> bytes:
    """Return a request of ours to the front end that has no payload, nor a reply."""
    return _header.pack(code, VHOST_USER_VERSION, 0)
