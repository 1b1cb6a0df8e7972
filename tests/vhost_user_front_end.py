"""A front end with real file descriptors, and a device that only takes notes."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from pathlib import Path

import vhost_user_traces as traces


def open_fds():
    """Return the descriptors of this process, without the one to look at them."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found[int(entry.name)] = str(entry.readlink())
    return {fd for fd, target in found.items() if not target.startswith("/proc/")}


def a_memfd(size=traces.FILE_AT + traces.RAM_SIZE):
    fd = os.memfd_create("guest")
    os.ftruncate(fd, size)
    return fd


class Device:
    """Notes what it is told; does what a test puts in."""

    def __init__(self):
        self.host = None
        self.calls = []
        self.features = 0
        self.space = bytearray(16)
        self.serve = lambda _index: False

    def __getattr__(self, name):
        # reset, unrealize, guest_changed, driver_ready, tick
        return lambda *args: self.calls.append((name, *args))

    def realize(self, host):
        self.host = host
        self.calls.append(("realize",))

    def get_features(self):
        return self.features

    def get_config(self, offset, size):
        part = bytes(self.space[offset : offset + size])
        return part + bytes(size - len(part))

    def queue_notify(self, index):
        self.calls.append(("queue_notify", index))
        return self.serve(index)

    def told(self):
        """Return and forget what was told, without kicks and time."""
        quiet = ("queue_notify", "tick", "save")
        told = [call for call in self.calls if call[0] not in quiet]
        self.calls.clear()
        return told

    def kicks(self):
        kicks = [call[1] for call in self.calls if call[0] == "queue_notify"]
        self.calls.clear()
        return kicks


class FrontEnd:
    """Sends traces over a socket, with descriptors made as they are needed.

    :ivar fds: our ends by name: ``memory``, ``kick0``, ``call0``, ``channel`` ...
    """

    def __init__(self, path, daemon):
        self.connect(path)
        self.daemon = daemon
        self.fds = {}
        self._theirs = {}

    def connect(self, path):
        """Connect; again, if a connection was lost."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(os.fspath(path))
        self.socket.settimeout(0)

    # --- descriptors ---

    def give(self, name, ours, theirs=None):
        """Use these descriptors under ``name``: ours, and what is sent if another."""
        self.forget(name)
        self.fds[name] = ours
        self._theirs[name] = ours if theirs is None else theirs

    def forget(self, name):
        for fd in {self.fds.pop(name, None), self._theirs.pop(name, None)} - {None}:
            os.close(fd)

    def _make(self, name):
        if name == "memory":
            self.give(name, a_memfd())
        elif name == "channel":
            ours, theirs = socket.socketpair()
            self.give(name, ours.detach(), theirs.detach())
        else:
            self.give(name, os.eventfd(0, os.EFD_NONBLOCK))

    def fd(self, name):
        if name not in self.fds:
            self._make(name)
        return self._theirs[name]

    # --- messages ---

    def raw(self, data, fds=()):
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        self.socket.sendmsg([data], [rights] if fds else [])

    def send(self, *sent):
        for request, payload, fds, ack in sent:
            header = struct.pack(
                "=III", traces.CODES[request], 1 | ack << 3, len(payload)
            )
            self.raw(header + payload, [self.fd(name) for name in fds])
            self.settle()

    def settle(self):
        """Let the daemon do all that it can do now."""
        for _ in range(50):
            if not self.daemon.step():
                return

    def replies(self):
        """Return what came back, as (request, payload)."""
        found = []
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while header := self.socket.recv(12):
                request, flags, size = struct.unpack("=III", header)
                assert flags == 5
                found.append((request, self.socket.recv(size) if size else b""))
        return found

    def say(self, *sent):
        """Send messages that are all right, and return the replies that are no acks."""
        answers = []
        for each in sent:
            self.send(each)
            replies = self.replies()
            if each.ack:
                assert replies == [(traces.CODES[each.request], bytes(8))], each
            else:
                answers += replies
        return answers

    def refused(self, request, payload=b"", fds=()):
        """Send a message that is answered by a failure."""
        self.send(traces.Sent(request, payload, fds, ack=True))
        assert self.replies() == [(traces.CODES[request], struct.pack("=Q", 1))]

    @property
    def cut_off(self):
        """Whether the daemon closed the connection."""
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    # --- events ---

    def kick(self, queue):
        os.eventfd_write(self.fds[f"kick{queue}"], 1)
        self.settle()

    def called(self, name):
        """Return whether an eventfd was written to, and clear it."""
        try:
            return bool(os.eventfd_read(self.fds[name]))
        except BlockingIOError:
            return False

    def announced(self):
        """Return what came on the backend channel."""
        os.set_blocking(self.fds["channel"], False)
        try:
            return os.read(self.fds["channel"], 4096)
        except BlockingIOError:
            return b""

    # --- guest memory ---

    def poke(self, at, data):
        """Write to RAM, at an offset from its beginning."""
        os.pwrite(self.fds["memory"], data, traces.FILE_AT + at)

    def peek(self, at, size):
        return os.pread(self.fds["memory"], size, traces.FILE_AT + at)

    def offer(self, queue, *heads):
        """Make buffers of one page number each available, all in one update."""
        desc, avail, _used = traces.ring_at(queue)
        (index,) = struct.unpack("<H", self.peek(avail + 2, 2))
        for head in heads:
            place = traces.GUEST_RAM + 0x8000 + head * 4
            self.poke(desc + head * 16, struct.pack("<QIHH", place, 4, 0, 0))
            slot = avail + 4 + index % traces.QUEUE_SIZE * 2
            self.poke(slot, struct.pack("<H", head))
            index = (index + 1) & 0xFFFF
        self.poke(avail + 2, struct.pack("<H", index))

    def used(self, queue):
        return struct.unpack("<H", self.peek(traces.ring_at(queue)[2] + 2, 2))[0]

    def close(self):
        for name in list(self.fds):
            self.forget(name)
        self.socket.close()
