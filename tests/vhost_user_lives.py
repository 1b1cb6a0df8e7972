"""A driver that lives on while its daemon dies, and comes back with what it kept."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import socket
import struct
import sys

import vhost_user_traces as traces
from ring import PackedDriverRing
from vhost_user_front_end import FrontEnd, open_fds
from vhost_user_traces import GUEST_RAM, Sent, number, state

from balloon_plugin import hookimpl, make_device
from balloon_plugin.events import (
    Answer,
    ByteOrder,
    Gate,
    Judgement,
    PagesDeflated,
    PagesInflated,
    Verdict,
)
from balloon_plugin.hosts.vhost_user.daemon import Daemon

FIRST_PAGE = GUEST_RAM // 4096 + 32


class Exact:
    """A policy that believes all, and remembers every buffer that it was shown."""

    def __init__(self):
        self.seen = []

    @hookimpl
    def policy_observe(self, event):
        if isinstance(event, PagesInflated | PagesDeflated):
            self.seen.append([type(event).__name__, *event.pfns])

    @hookimpl
    def policy_gate(self, requested):
        return Gate(requested, reclaim=True, targets=Answer.ACCEPTED)

    @hookimpl
    def policy_verdict(self):
        return Verdict(Judgement.GOOD, "BELIEVED")

    @hookimpl
    def policy_save(self):
        return {"seen": self.seen}

    @hookimpl
    def policy_load(self, state):
        self.seen = [list(buffer) for buffer in state["seen"]]
        return True


class Host:
    """A daemon that can die, and be started again."""

    def __init__(self, folder):
        self.path = folder / "guest.sock"
        self.state = folder / "guest.state"
        self.kept = True
        self.start()

    def start(self):
        self.daemon = Daemon()
        self.policy = Exact()
        self.slot = self.daemon.add(
            self.path,
            lambda: make_device(self.policy),
            state=self.state if self.kept else None,
        )

    @property
    def device(self):
        return self.slot.device

    def step(self, timeout=0.0):
        return self.daemon.step(timeout)

    def die(self):
        """Do what the kernel does for a process that was killed, and nothing else."""
        connection, keeper = self.slot._door.visitor, self.slot._keeper
        if connection is not None:
            connection._wire._socket.close()
            connection._channel.close()
        self.slot._host.disconnect()
        self.slot._door._file.socket.close()
        self.daemon._loop.close()
        if keeper._file is not None:
            keeper._file._forget()
            os.close(keeper._file._lock)

    def restart(self):
        self.die()
        self.start()


@contextlib.contextmanager
def a_host(folder):
    """Have a host in a folder; in the end no descriptor may be left of it."""
    before = open_fds()
    host = Host(folder)
    yield host
    host.daemon.close()
    assert open_fds() == before


class Guest(FrontEnd):
    """A driver that stays the same on every connection."""

    records = False
    """Whether it keeps a record of what is in flight."""

    described = b""
    """Where that is, in its file."""

    features = traces.MODERN

    def __init__(self, host, before=None):
        super().__init__(host.path, host)
        if before is not None:
            self.records, self.described = before.records, before.described
            for name in {"memory", "inflight"} & before.fds.keys():
                self.give(name, os.dup(before.fds[name]))
            before.close()

    @property
    def bases(self):
        """Where its front end thinks that its queues stand."""
        return [self.used(queue) if "memory" in self.fds else 0 for queue in (0, 1)]

    def start(self, *, bases=None, features=None):
        self.say(*traces.UML_CONNECT)
        if self.records:
            protocol = traces.UML_PROTOCOL | 1 << 12
            self.say(Sent("SET_PROTOCOL_FEATURES", number(protocol), ack=True))
            self.keep_record()
        self.say(*self.probe(bases or self.bases, features or self.features))
        return self

    def probe(self, bases, features=traces.MODERN):
        """Return what comes when queues start, from where they stand."""
        return [
            sent._replace(payload=state(sent.payload[0], bases[sent.payload[0]]))
            if sent.request == "SET_VRING_BASE"
            else sent
            for sent in traces.uml_probe(features)
        ]

    def keep_record(self, queues=2, entries=traces.QUEUE_SIZE):
        """Give back the record of what is in flight; the first time, ask for one."""
        if "inflight" not in self.fds:
            described, fd = self.ask_for_record(queues, entries)
            self.give("inflight", fd)
            self.described = described
        self.say(Sent("SET_INFLIGHT_FD", self.described, ("inflight",), ack=True))

    def ask_for_record(self, queues, entries):
        """Return what a record is described as, and its file."""
        wanted = struct.pack("=QQHH4x", 0, 0, queues, entries)
        self.send(Sent("GET_INFLIGHT_FD", wanted))
        data, fds, _, _ = socket.recv_fds(self.socket, 12 + len(wanted), 1)
        assert struct.unpack_from("=III", data) == (31, 5, len(wanted))
        return data[12:], fds[0]

    def send_pages(self, queue, *pages):
        """Offer a buffer for each page, kick, and let nobody wait for it."""
        for head, page in enumerate(pages):
            self.poke(0x8000 + head * 4, (FIRST_PAGE + page).to_bytes(4, "little"))
        self.offer(queue, *range(len(pages)))
        os.eventfd_write(self.fds[f"kick{queue}"], 1)


def inflated(*pages):
    return [["PagesInflated", FIRST_PAGE + page] for page in pages]


# --- packed rings -------------------------------------------------------------------

PACKED = traces.MODERN | 1 << 34
BEGINNING = 0x8000_8000
"""All that QEMU knows of a packed queue whose back end died."""


class PackedGuest(Guest):
    """A driver with packed rings, which stay the same on every connection."""

    features = PACKED
    bases = (BEGINNING, BEGINNING)

    def __init__(self, host, before=None):
        super().__init__(host, before)
        self._map = mmap.mmap(self.fd("memory"), 0)
        self.rings = before.rings if before else {}
        for queue in (0, 1):
            self.lay_out(queue)

    def lay_out(self, queue):
        desc, avail, used = (traces.FILE_AT + at for at in traces.ring_at(queue))
        ring = PackedDriverRing(
            self._map, traces.QUEUE_SIZE, ByteOrder.LITTLE, start=desc
        )
        ring.avail, ring.used = avail, used
        if queue in self.rings:
            state = vars(self.rings[queue])
            vars(ring).update({name: state[name] for name in _DRIVERS})
        self.rings[queue] = ring

    def send_pages(self, queue, *pages):
        for page in pages:
            ident = self.rings[queue].place
            at = 0x8000 + ident * 4
            self.poke(at, (FIRST_PAGE + page).to_bytes(4, "little"))
            self.rings[queue].offer(ident, (GUEST_RAM + at, 4, 0))
        os.eventfd_write(self.fds[f"kick{queue}"], 1)

    def close(self):
        self._map.close()
        super().close()


_DRIVERS = "place", "wrap", "seen", "seen_wrap", "lists"
"""What a driver knows of a packed ring, and its memory does not say."""


# --- death --------------------------------------------------------------------------


class KilledError(BaseException):
    """Stands for SIGKILL: nobody catches it."""


def killed_at(moment, work):
    """Do the work and die at one of its moments; return how many it had if it lived."""
    count = 0

    def profile(_frame, _event, function):
        nonlocal count
        if function is sys.setprofile:
            return  # the work is done
        if count == moment:
            raise KilledError
        count += 1

    gc.disable()  # or else somebody's callback might be what dies
    sys.setprofile(profile)
    try:
        work()
    except KilledError:
        return None
    finally:
        sys.setprofile(None)
        gc.enable()
    return count
