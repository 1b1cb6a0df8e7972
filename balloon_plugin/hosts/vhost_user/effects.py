"""What a message of the front end leads to, as values.

The automaton (:mod:`~balloon_plugin.hosts.vhost_user.protocol`) returns them, the
connection carries them out, in order. File descriptors in them are numbers; the one who
carries out an effect owns those in it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from balloon_plugin.events import ByteOrder
from balloon_plugin.hosts.vhost_user.payloads import Inflight, Log, Region
from balloon_plugin.virtqueue import Ring

__all__ = [
    "AddMemory",
    "CheckState",
    "DescribeGuest",
    "DriverReady",
    "Effect",
    "GuestChanged",
    "LoadState",
    "LogDiscards",
    "Notifier",
    "RemoveMemory",
    "Reply",
    "ReplyBase",
    "ReplyConfig",
    "ReplyFeatures",
    "ReplyInflight",
    "ResetDevice",
    "Resume",
    "SaveState",
    "SetBackendChannel",
    "SetBase",
    "SetConfig",
    "SetFeatures",
    "SetInflight",
    "SetLog",
    "SetLogNotifier",
    "SetMemory",
    "SetNotifier",
    "StartQueue",
    "StopQueue",
]

# --- replies ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """Send these bytes to the front end."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ReplyFeatures:
    """Ask the device for its feature bits and reply with them."""


@dataclass(frozen=True, slots=True)
class ReplyConfig:
    """Ask the device for this part of its configuration space and reply with it."""

    offset: int
    size: int
    flags: int


@dataclass(frozen=True, slots=True)
class ReplyInflight:
    """Reply with a new buffer for what is in flight, and its file descriptor.

    :ivar size: bytes of the reply.
    """

    num_queues: int
    queue_size: int
    size: int


@dataclass(frozen=True, slots=True)
class ReplyBase:
    """Reply with the position at which the queue stands."""

    index: int


# --- the device's state -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SaveState:
    """Write the state to this file descriptor, and close it."""

    fd: int


@dataclass(frozen=True, slots=True)
class LoadState:
    """Read a state from this file descriptor to its end."""

    fd: int


@dataclass(frozen=True, slots=True)
class CheckState:
    """Reply whether the last transfer succeeded, as soon as that is known."""


# --- memory and rings ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetMemory:
    """Map these regions, one from each file descriptor, in place of all others."""

    regions: tuple[Region, ...]
    fds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AddMemory:
    """Map one more region."""

    region: Region
    fd: int


@dataclass(frozen=True, slots=True)
class RemoveMemory:
    """Unmap the region with the same guest address, user address and size."""

    region: Region


@dataclass(frozen=True, slots=True)
class StartQueue:
    """Serve a queue from where it stands, and look into it at once.

    Its ring is described in the front end's addresses.

    :ivar log: where in the log what is written to it is marked, or ``None``.
    """

    index: int
    ring: Ring
    log: int | None = None


@dataclass(frozen=True, slots=True)
class StopQueue:
    """Serve a queue no more, and keep where it stands."""

    index: int


@dataclass(frozen=True, slots=True)
class SetBase:
    """A queue that is stopped stands at this position, as the front end has it."""

    index: int
    base: int


@dataclass(frozen=True, slots=True)
class SetInflight:
    """Record what is in flight here, and go on with what is recorded."""

    described: Inflight
    fd: int


class Notifier(enum.Enum):
    """What a queue's file descriptor is for."""

    KICK = "kick"
    CALL = "call"
    ERR = "error"


@dataclass(frozen=True, slots=True)
class SetNotifier:
    """Use this file descriptor (or none) for one of a queue's notifications."""

    notifier: Notifier
    index: int
    fd: int | None


@dataclass(frozen=True, slots=True)
class SetLog:
    """Mark what is written to guest memory here, a bit a page."""

    log: Log
    fd: int


@dataclass(frozen=True, slots=True)
class SetLogNotifier:
    """Write to this file descriptor when something was marked."""

    fd: int


@dataclass(frozen=True, slots=True)
class LogDiscards:
    """Mark pages that are given back, or (``on`` is false) mark them no more."""

    on: bool


@dataclass(frozen=True, slots=True)
class SetBackendChannel:
    """Send our own requests to this file descriptor."""

    fd: int


@dataclass(frozen=True, slots=True)
class DescribeGuest:
    """The front end let know the guest's byte order, or (``None``) lets it no more."""

    byte_order: ByteOrder | None


# --- the device's hooks -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ResetDevice:
    """End the driver session."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on with the session that is parked, if it is that of this guest's driver.

    If it is not, a new one begins, of a driver that is under way already.

    :ivar features: what the driver accepted.
    :ivar ready: whether it set DRIVER_OK.
    :ivar rings: by queue what is known of the rings that the front end brought back.
    """

    features: int
    ready: bool
    rings: Mapping[int, Ring] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GuestChanged:
    """Memory or facts are others than the device knows."""


@dataclass(frozen=True, slots=True)
class SetFeatures:
    """The driver accepted these bits."""

    features: int


@dataclass(frozen=True, slots=True)
class DriverReady:
    """The driver set DRIVER_OK, or what is nearest to it."""


@dataclass(frozen=True, slots=True)
class SetConfig:
    """The driver wrote to the configuration space."""

    offset: int
    data: bytes


Effect: TypeAlias = (
    Reply
    | ReplyFeatures
    | ReplyConfig
    | ReplyBase
    | ReplyInflight
    | SaveState
    | LoadState
    | CheckState
    | SetMemory
    | AddMemory
    | RemoveMemory
    | StartQueue
    | StopQueue
    | SetBase
    | SetInflight
    | SetNotifier
    | SetLog
    | SetLogNotifier
    | LogDiscards
    | SetBackendChannel
    | DescribeGuest
    | ResetDevice
    | Resume
    | GuestChanged
    | SetFeatures
    | DriverReady
    | SetConfig
)
"""Anything that the automaton asks for."""
