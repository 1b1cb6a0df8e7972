"""A wire that outlives the daemon.

Neither User-Mode Linux nor QEMU's generic device connects again when its back end is
gone. What it takes to connect again is little, and :class:`Relay` does it in their
stead, between the guest and the daemon, as another front end would.
"""

from __future__ import annotations

import array
import contextlib
import mmap
import os
import select
import socket
import struct
import threading
import time

from console_guest import PATIENCE

GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 1, 2, 3, 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE = 8, 9, 10
SET_VRING_KICK, SET_VRING_CALL = 12, 13
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES = 15, 16
SET_VRING_ENABLE, SET_BACKEND_REQ_FD, SET_VRING_ENDIAN, SET_STATUS = 18, 21, 23, 39

ONCE = (SET_OWNER, SET_PROTOCOL_FEATURES, SET_BACKEND_REQ_FD)
AGAIN = (SET_FEATURES, SET_STATUS, SET_MEM_TABLE)
RINGS = (
    SET_VRING_ENDIAN,
    SET_VRING_CALL,
    SET_VRING_NUM,
    SET_VRING_BASE,
    SET_VRING_ADDR,
)
STARTS = (SET_VRING_KICK, SET_VRING_ENABLE)
NEED_REPLY = 8

CONFIGURE_MEM_SLOTS = 1 << 15
"""Hidden from the front end: its memory is one table then, which can be said again."""


class Message(tuple):
    """A message as bytes, and the descriptors with it."""

    __slots__ = ()

    @property
    def code(self):
        return struct.unpack_from("=I", self[0])[0]

    @property
    def waits(self):
        """Whether it is answered; requests that ask for something are."""
        _, flags, _ = struct.unpack_from("=III", self[0])
        return bool(flags & NEED_REPLY) or self.code in (1, 11, 15, 17, 24, 36, 40)


def receive(sock):
    """Return a whole message, or ``None`` at the end."""
    data, fds = b"", array.array("i")
    wanted = 12
    while len(data) < wanted:
        piece, ancillary, _, _ = sock.recvmsg(wanted - len(data), 256)
        if not piece:
            return None
        data += piece
        for _level, _kind, rights in ancillary:
            fds.frombytes(rights)
        if len(data) >= 12:
            wanted = 12 + struct.unpack_from("=I", data, 8)[0]
    return Message((data, fds.tolist()))


def send(sock, message):
    data, fds = message
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    sock.sendmsg([data], rights if fds else [])


def connect(path):
    """Connect to whoever listens there, as soon as somebody does."""
    end = time.monotonic() + PATIENCE
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            assert time.monotonic() < end
            time.sleep(0.02)
        else:
            return sock


class Joint:
    """Connects two that both listen, again and again, until the front end is gone.

    It hides nothing and remembers nothing: what ends at one side ends at the other.
    """

    def __init__(self, front, back):
        self._front, self._back = os.fspath(front), os.fspath(back)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self):
        self._thread.join(PATIENCE)

    def _run(self):
        connected = True
        while connected:
            with connect(self._back) as back, socket.socket(socket.AF_UNIX) as front:
                connected = front.connect_ex(self._front) == 0
                if connected:
                    pass_all(front, back)


def pass_all(one, other):
    """Pass messages on between two, until one of them hangs up."""
    with contextlib.suppress(OSError):
        while True:
            readable, _, _ = select.select([one, other], [], [])
            message = receive(readable[0])
            if message is None:
                return
            send(other if readable[0] is one else one, message)
            for fd in message[1]:
                os.close(fd)


class Relay:
    """Passes messages on, remembers them, and says them again to the next daemon.

    :param hidden: feature bits that the guest is not to see.
    :ivar connected: how often it connected to a daemon.
    """

    def __init__(self, front, back, hidden=0):
        self._hidden = {
            GET_FEATURES: hidden,
            GET_PROTOCOL_FEATURES: CONFIGURE_MEM_SLOTS,
        }
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.fspath(front))
        self._listener.listen()
        self._back = os.fspath(back)
        self._said = {}
        self._memory = None
        self.connected = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self):
        self._thread.join(PATIENCE)
        self._listener.close()

    def _run(self):
        guest, _ = self._listener.accept()
        daemon = self._connect()
        with guest:
            while True:
                readable, _, _ = select.select([guest, daemon], [], [])
                if daemon in readable:  # it never speaks first: it is gone
                    daemon.close()
                    daemon = self._connect_again()
                    continue
                message = receive(guest)
                if message is None:
                    break
                daemon = self._pass_on(guest, daemon, message)
                self._remember(message)
        daemon.close()
        for _data, fds in self._said.values():
            for fd in fds:
                os.close(fd)

    def _connect(self):
        daemon = connect(self._back)
        self.connected += 1
        return daemon

    def _pass_on(self, guest, daemon, message):
        """Pass a message on until a daemon has answered it."""
        while True:
            with contextlib.suppress(OSError):
                send(daemon, message)
                answer = receive(daemon) if message.waits else b""
                if answer is not None:
                    if answer:
                        send(guest, self._less(answer))
                    return daemon
            daemon.close()
            daemon = self._connect_again()

    def _less(self, answer):
        if answer.code not in self._hidden:
            return answer
        data, fds = answer
        (bits,) = struct.unpack_from("=Q", data, 12)
        bits &= ~self._hidden[answer.code]
        return Message((data[:12] + struct.pack("=Q", bits), fds))

    def _remember(self, message):
        key = message.code
        if key in (*RINGS, *STARTS):
            key = key, message[0][12]
        elif key not in (*ONCE, *AGAIN):
            for fd in message[1]:
                os.close(fd)
            return
        for fd in self._said.get(key, (b"", []))[1]:
            os.close(fd)
        self._said[key] = message

    def _connect_again(self):
        """Bring the guest to the next daemon, with its queues where they stood."""
        while True:
            daemon = self._connect()
            with contextlib.suppress(OSError):
                if all(self._say(daemon, message) for message in self._again()):
                    return daemon
            daemon.close()

    def _say(self, daemon, message):
        send(daemon, message)
        return not message.waits or receive(daemon) is not None

    def _again(self):
        queues = sorted({key[1] for key in self._said if isinstance(key, tuple)})
        keys = [*ONCE, *AGAIN]
        keys += [(code, index) for index in queues for code in RINGS]
        keys += [(code, index) for index in queues for code in STARTS]
        for key in keys:
            message = self._said.get(key)
            if message is None:
                continue
            if key == (SET_VRING_BASE, key[1] if isinstance(key, tuple) else None):
                message = self._where_it_stood(key[1], message)
            yield message

    def _where_it_stood(self, index, message):
        """Return SET_VRING_BASE with the first buffer that was not returned."""
        data, fds = self._said[SET_MEM_TABLE]
        _guest, size, user, offset = struct.unpack_from("=QQQQ", data, 20)
        address = self._said[SET_VRING_ADDR, index][0]
        (used,) = struct.unpack_from("=Q", address, 28)
        with mmap.mmap(fds[0], size, offset=offset // 4096 * 4096) as memory:
            at = used - user + offset % 4096 + 2
            base = int.from_bytes(memory[at : at + 2], self._order(index))
        return Message((message[0][:12] + struct.pack("=II", index, base), []))

    def _order(self, index):
        said = self._said.get((SET_VRING_ENDIAN, index))
        return "big" if said and said[0][16] else "little"
