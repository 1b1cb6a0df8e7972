"""What real front ends send, as data: User-Mode Linux 6.1 and QEMU 11.1.

Taken down from both, with the balloon driver of the guest. Each entry is a request, its
payload, the names of the file descriptors with it, and whether it wants a reply by
REPLY_ACK. All numbers here are written out, so that they do not depend on the code
that they test.
"""

from __future__ import annotations

import struct
from typing import NamedTuple


class Sent(NamedTuple):
    request: str
    payload: bytes = b""
    fds: tuple[str, ...] = ()
    ack: bool = False


CODES = {
    "GET_FEATURES": 1,
    "SET_FEATURES": 2,
    "SET_OWNER": 3,
    "RESET_OWNER": 4,
    "SET_MEM_TABLE": 5,
    "SET_LOG_BASE": 6,
    "SET_LOG_FD": 7,
    "SET_VRING_NUM": 8,
    "SET_VRING_ADDR": 9,
    "SET_VRING_BASE": 10,
    "GET_VRING_BASE": 11,
    "SET_VRING_KICK": 12,
    "SET_VRING_CALL": 13,
    "SET_VRING_ERR": 14,
    "GET_PROTOCOL_FEATURES": 15,
    "SET_PROTOCOL_FEATURES": 16,
    "GET_QUEUE_NUM": 17,
    "SET_VRING_ENABLE": 18,
    "SET_BACKEND_REQ_FD": 21,
    "SET_VRING_ENDIAN": 23,
    "GET_CONFIG": 24,
    "SET_CONFIG": 25,
    "GET_INFLIGHT_FD": 31,
    "SET_INFLIGHT_FD": 32,
    "RESET_DEVICE": 34,
    "GET_MAX_MEM_SLOTS": 36,
    "ADD_MEM_REG": 37,
    "REM_MEM_REG": 38,
    "SET_STATUS": 39,
    "GET_STATUS": 40,
    "SET_DEVICE_STATE_FD": 42,
    "CHECK_DEVICE_STATE": 43,
}

LEGACY = 1 << 30 | 1 << 28
MODERN = LEGACY | 1 << 32
OFFERED = MODERN | 1 << 26 | 1 << 29 | 1 << 34
"""By us, besides the device's own. The traces are from before rings had two more."""

UML_PROTOCOL = 1 << 3 | 1 << 5 | 1 << 9
QEMU_PROTOCOL = sum(1 << bit for bit in (0, 1, 6, 12, 13, 15, 16, 19)) | UML_PROTOCOL
"""All that is offered."""

GUEST_RAM = 0x4000_0000
USER_RAM = 0x7F00_0000_0000
RAM_SIZE = 0x10_0000
FILE_AT = 0x2000
QUEUE_SIZE = 128


def number(value):
    return struct.pack("=Q", value)


def state(queue, num):
    return struct.pack("=II", queue, num)


def region(guest=GUEST_RAM, size=RAM_SIZE, user=USER_RAM, offset=FILE_AT):
    return struct.pack("=QQQQ", guest, size, user, offset)


def table(*regions):
    return struct.pack("=II", len(regions), 0) + b"".join(regions)


def config(offset, data, flags=0):
    return struct.pack("=III", offset, len(data), flags) + data


def ring_at(queue):
    """Return where the parts of a queue are, from the beginning of RAM."""
    base = 0x1000 + queue * 0x2000
    return base, base + 0x800, base + 0x1000


def address(queue, user=USER_RAM):
    desc, avail, used = (user + part for part in ring_at(queue))
    return struct.pack("=IIQQQQ", queue, 0, desc, used, avail, 2**64 - 1)


def space(actual=0, poison=0, num_pages=0x5EAD):
    """Return a whole configuration space as QEMU sends it, with a stale num_pages."""
    return struct.pack("<IIII", num_pages, actual, 0, poison)


# --- User-Mode Linux ----------------------------------------------------------------

UML_CONNECT = [
    Sent("SET_OWNER"),
    Sent("GET_FEATURES"),
    Sent("GET_PROTOCOL_FEATURES"),
    Sent("SET_PROTOCOL_FEATURES", number(UML_PROTOCOL), ack=True),
    Sent("SET_BACKEND_REQ_FD", fds=("channel",), ack=True),
]


def uml_probe(features=MODERN, queues=2):
    """Return what comes when the module is loaded."""
    # The table is a structure with room for two regions, of which one is filled in.
    yield Sent("SET_FEATURES", number(features), ack=True)
    memory = table(region()) + bytes(32)
    yield Sent("SET_MEM_TABLE", memory, ("memory",), ack=True)
    for queue in range(queues):
        yield Sent("SET_VRING_CALL", number(queue), (f"call{queue}",), ack=True)
        yield Sent("SET_VRING_NUM", state(queue, QUEUE_SIZE), ack=True)
        yield Sent("SET_VRING_BASE", state(queue, 0), ack=True)
        yield Sent("SET_VRING_ADDR", address(queue), ack=True)
    for queue in range(queues):
        yield Sent("SET_VRING_KICK", number(queue), (f"kick{queue}",), ack=True)
        yield Sent("SET_VRING_ENABLE", state(queue, 1), ack=True)


UML_READ_TARGET = [Sent("GET_CONFIG", config(0, bytes(4)))]


def uml_write_actual(actual):
    return [Sent("SET_CONFIG", config(4, struct.pack("<I", actual)), ack=True)]


UML_REMOVE = [
    Sent("SET_VRING_ENABLE", state(1, 0), ack=True),
    Sent("SET_VRING_ENABLE", state(0, 0), ack=True),
    Sent("GET_FEATURES"),
]
"""What comes when the module is unloaded; no message tells of the device's reset."""


# --- QEMU's vhost-user-test-device --------------------------------------------------

QEMU_CONNECT = [
    Sent("GET_FEATURES"),
    Sent("GET_PROTOCOL_FEATURES"),
    Sent("SET_PROTOCOL_FEATURES", number(QEMU_PROTOCOL)),
    Sent("GET_QUEUE_NUM"),
    Sent("GET_MAX_MEM_SLOTS"),
    Sent("SET_BACKEND_REQ_FD", fds=("channel",), ack=True),
    Sent("SET_OWNER"),
    Sent("GET_FEATURES"),
    Sent("SET_VRING_CALL", number(0), ("call0",), ack=True),
    Sent("SET_VRING_ERR", number(0), ("err0",), ack=True),
    Sent("SET_VRING_CALL", number(1), ("call1",), ack=True),
    Sent("SET_VRING_ERR", number(1), ("err1",), ack=True),
]


def qemu_memory():
    """Return what goes between status and rings, when memory is not there yet."""
    single = bytes(8) + region()
    return [Sent("ADD_MEM_REG", single, ("memory",), ack=True)]


def qemu_start(features=MODERN, bases=(0, 0), *, big=None, first=False):
    """Return what comes on DRIVER_OK, and when a paused machine goes on.

    The generic device never sends DRIVER_OK itself. FEATURES_OK goes once, since
    nothing clears it.
    """
    yield Sent("SET_FEATURES", number(features))
    yield Sent("GET_STATUS")
    if first:
        yield Sent("SET_STATUS", number(8))
        yield from qemu_memory()
    for queue, base in enumerate(bases):
        yield Sent("SET_VRING_NUM", state(queue, QUEUE_SIZE))
        yield Sent("SET_VRING_BASE", state(queue, base))
        if big is not None:
            yield Sent("SET_VRING_ENDIAN", state(queue, int(big)))
        yield Sent("SET_VRING_ADDR", address(queue))
        yield Sent("SET_VRING_KICK", number(queue), (f"kick{queue}",), ack=True)
        yield Sent("SET_VRING_CALL", number(queue), (f"call{queue}",), ack=True)
    for queue in range(len(bases)):
        yield Sent("SET_VRING_ENABLE", state(queue, 1), ack=True)
    for queue in range(len(bases)):
        yield Sent("SET_VRING_CALL", number(queue), (f"call{queue}",), ack=True)


def qemu_stop(*, endian=False):
    """Return what comes on a reset by the guest, on unload and on a pause alike."""
    for queue in range(2):
        yield Sent("SET_VRING_ENABLE", state(queue, 0), ack=True)
    for queue in range(2):
        yield Sent("GET_VRING_BASE", state(queue, 0))
        if endian:
            # Back to the byte order of the machine, whatever comes next.
            yield Sent("SET_VRING_ENDIAN", state(queue, 0))


QEMU_READ = [Sent("GET_CONFIG", config(0, bytes(16)))]
"""Any read of the guest, of any byte."""


def qemu_write(actual, poison=0):
    """Return one write access of the guest."""
    return [Sent("SET_CONFIG", config(0, space(actual, poison)), ack=True)]
