"""Payloads of vhost-user messages: bytes to values and back.

Knows how the values lie in the bytes, from :mod:`~balloon_plugin.layouts`; knows not
which request brings which. Sections in quotes are those of QEMU's
``docs/interop/vhost-user.rst``, the specification.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from balloon_plugin.events import ByteOrder
from balloon_plugin.layouts import (
    VHOST_USER_CONFIG,
    VHOST_USER_INFLIGHT,
    VHOST_USER_LOG,
    VHOST_USER_MEMORY,
    VHOST_USER_MEMORY_REGION,
    VHOST_USER_SINGLE_MEMORY_REGION,
    VHOST_USER_TRANSFER_DEVICE_STATE,
    VHOST_USER_U64,
    VHOST_USER_VRING_IDX_MASK,
    VHOST_USER_VRING_NOFD_MASK,
    VHOST_VRING_ADDR,
    VHOST_VRING_F_LOG,
    VHOST_VRING_STATE,
)

__all__ = [
    "NATIVE",
    "Access",
    "Inflight",
    "Log",
    "Region",
    "RingFd",
    "Transfer",
    "VringAddress",
    "VringState",
    "config_access",
    "inflight",
    "log",
    "memory_table",
    "number",
    "pack_config",
    "pack_inflight",
    "pack_memory_table",
    "pack_number",
    "pack_region",
    "pack_vring_state",
    "region",
    "ring_fd",
    "transfer",
    "vring_address",
    "vring_state",
]

NATIVE: Final = ByteOrder(sys.byteorder)
"""Byte order of messages: that of the machine ("Message Specification", note)."""

_number = VHOST_USER_U64.of(NATIVE)
_vring_state = VHOST_VRING_STATE.of(NATIVE)
_vring_address = VHOST_VRING_ADDR.of(NATIVE)
_table_head = VHOST_USER_MEMORY.of(NATIVE)
_region = VHOST_USER_MEMORY_REGION.of(NATIVE)
_single_region = VHOST_USER_SINGLE_MEMORY_REGION.of(NATIVE)
_config_head = VHOST_USER_CONFIG.of(NATIVE)
_log = VHOST_USER_LOG.of(NATIVE)
_inflight = VHOST_USER_INFLIGHT.of(NATIVE)
_transfer = VHOST_USER_TRANSFER_DEVICE_STATE.of(NATIVE)


# --- payloads to values -------------------------------------------------------------


class VringState(NamedTuple):
    """A queue's number, and a number that depends on the request."""

    queue: int
    num: int


class VringAddress(NamedTuple):
    """Where a ring lies, in the front end's own addresses ("Memory access").

    ``log`` is where in the log what we write to it is marked, if it is to be.
    """

    queue: int
    desc: int
    used: int
    avail: int
    log: int | None = None


class RingFd(NamedTuple):
    """A queue's number, and whether a file descriptor comes with it."""

    queue: int
    has_fd: bool


class Region(NamedTuple):
    """A piece of guest memory ("Memory regions description")."""

    guest_address: int
    size: int
    user_address: int
    offset: int


class Access(NamedTuple):
    """An access to the configuration space; ``data`` is what follows the head."""

    offset: int
    size: int
    flags: int
    data: bytes


class Log(NamedTuple):
    """Where the log of dirty pages lies in its file ("Log description")."""

    size: int
    offset: int


class Inflight(NamedTuple):
    """Where the record of buffers in flight lies ("Inflight description").

    In a file, with room for so many queues of that many entries each.
    """

    size: int
    offset: int
    num_queues: int
    queue_size: int


class Transfer(NamedTuple):
    """Where a device's state goes, and when ("Device state transfer parameters")."""

    direction: int
    phase: int


def number(payload: bytes) -> int:
    """Return a payload that is one number."""
    value: int
    (value,) = _number.unpack(payload)
    return value


def vring_state(payload: bytes) -> VringState:
    """Return a vring state description."""
    return VringState(*_vring_state.unpack(payload))


def vring_address(payload: bytes) -> VringAddress:
    """Return a vring address description."""
    index, flags, desc, used, avail, marks = _vring_address.unpack(payload)
    return VringAddress(
        index, desc, used, avail, marks if flags & 1 << VHOST_VRING_F_LOG else None
    )


def ring_fd(payload: bytes) -> RingFd:
    """Return the queue of a kick, call or error descriptor, and if there is one."""
    value = number(payload)
    return RingFd(
        value & VHOST_USER_VRING_IDX_MASK, not value & VHOST_USER_VRING_NOFD_MASK
    )


def memory_table(payload: bytes) -> tuple[Region, ...] | None:
    """Return the regions of a table, or ``None`` if it is shorter than it says."""
    count, _padding = _table_head.unpack_from(payload)
    if count * _region.size > len(payload) - _table_head.size:
        return None
    end = _table_head.size + count * _region.size
    return tuple(
        Region(*fields)
        for fields in _region.iter_unpack(payload[_table_head.size : end])
    )


def region(payload: bytes) -> Region:
    """Return a single memory region description."""
    return Region(*_single_region.unpack(payload)[1:])


def config_access(payload: bytes) -> Access:
    """Return an access to the configuration space."""
    offset, size, flags = _config_head.unpack_from(payload)
    return Access(offset, size, flags, payload[_config_head.size :])


def log(payload: bytes) -> Log:
    """Return where the log of dirty pages lies."""
    return Log(*_log.unpack(payload))


def inflight(payload: bytes) -> Inflight:
    """Return where the record of buffers in flight lies."""
    return Inflight(*_inflight.unpack_from(payload))


def transfer(payload: bytes) -> Transfer:
    """Return the parameters of a state's transfer."""
    return Transfer(*_transfer.unpack(payload))


# --- values to bytes ------------------------------------------------------------------


def pack_number(value: int) -> bytes:
    """Return a payload that is one number."""
    return _number.pack(value)


def pack_vring_state(index: int, num: int) -> bytes:
    """Return a vring state description."""
    return _vring_state.pack(index, num)


def pack_memory_table(regions: Sequence[Region]) -> bytes:
    """Return a table of memory regions."""
    head = _table_head.pack(len(regions), 0)
    return head + b"".join(_region.pack(*region) for region in regions)


def pack_region(region: Region) -> bytes:
    """Return a single memory region description."""
    return _single_region.pack(0, *region)


def pack_config(offset: int, flags: int, data: bytes) -> bytes:
    """Return an access to the configuration space."""
    return _config_head.pack(offset, len(data), flags) + data


def pack_inflight(described: Inflight, size: int) -> bytes:
    """Return where the record of buffers in flight lies, in so many bytes."""
    return _inflight.pack(*described).ljust(size, b"\0")
