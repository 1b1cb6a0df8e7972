"""A joint of two that both listen, and that neither of them knows of."""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
import threading
import time

from console_guest import PATIENCE


def receive(sock):
    """Return a whole message and its descriptors, or ``None`` at the end."""
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
    return data, fds.tolist()


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
