"""A host, its queues and a policy that a test holds in its hands.

They keep to the protocols of :mod:`balloon_plugin.hookspecs` and to nothing else: guest
memory is a plain byte array, a queue is a list, and what the device does to its host is
written down in order in :attr:`FakeHost.log`.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pluggy

from balloon_plugin import hookspecs
from balloon_plugin.calls import Device, ObserverCalls, PolicyCalls
from balloon_plugin.events import (
    Answer,
    ByteOrder,
    Gate,
    GuestFacts,
    GuestFault,
    Judgement,
    MemoryRange,
    Verdict,
)
from balloon_plugin.features import DeviceOptions
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.manager import make_device
from balloon_plugin.memory import GuestMemory, Region
from balloon_plugin.virtqueue import Chain

PAGE = 4096
RAM_PAGES = 4096
OUTSIDE = RAM_PAGES * PAGE
"""The first address that is not RAM of the usual guest."""

BUFFERS = 2048 * PAGE
"""Where the fake driver keeps its buffers, from here to the end of the first RAM."""


QUEUES = 5
"""Queues that the driver has started: as many as a balloon can have."""

MUST_TELL_HOST = 1
"""The mask of VIRTIO_BALLOON_F_MUST_TELL_HOST."""

STATS_VQ = 2
"""The mask of VIRTIO_BALLOON_F_STATS_VQ, which a device offers by default."""


def words(*values):
    """Return 32-bit words as they are in a buffer or in the configuration space."""
    return struct.pack(f"<{len(values)}I", *values)


# --- the host -----------------------------------------------------------------------


class FakeHost:
    """A host that writes down what the device asks of it.

    :param ram: ranges as (first page, pages); the first one holds the driver's buffers.
    :param facts: what it knows of the guest besides its RAM.

    :ivar log: what the device did, oldest first: ``("discard", runs)``,
        ``("push", index, heads)``, ``("notify", index)``, ``("config",)``,
        ``("reset",)``.
    :ivar clock: what ``now`` returns.
    :ivar given_back: what ``discard`` returns; all that it is asked for, if ``None``.
    """

    def __init__(self, ram=((0, RAM_PAGES),), **facts):
        self.log: list[tuple[Any, ...]] = []
        self.clock = 0.0
        self.given_back: int | None = None
        self._known = facts
        self.plug(ram)
        self.queues: dict[int, FakeQueue | None] = {
            index: FakeQueue(self, index) for index in range(QUEUES)
        }

    def plug(self, ram, **facts):
        """Change the guest's RAM, and what is known of it."""
        self._known |= facts
        ranges = tuple(MemoryRange(start * PAGE, count * PAGE) for start, count in ram)
        self.facts = GuestFacts(ranges, **self._known)
        self.memory = GuestMemory(
            Region(part.start, memoryview(bytearray(part.size))) for part in ranges
        )

    def queue(self, index):
        return self.queues.get(index)

    def discard(self, runs):
        self.log.append(("discard", tuple(runs)))
        asked = sum(count for _, count in runs)
        return asked if self.given_back is None else self.given_back

    def notify_queue(self, index):
        self.log.append(("notify", index))

    def notify_config(self):
        self.log.append(("config",))

    def needs_reset(self):
        self.log.append(("reset",))

    def now(self):
        return self.clock

    @property
    def discards(self):
        """All runs that were discarded, in order."""
        return [run for what, *rest in self.log if what == "discard" for run in rest[0]]

    def count(self, what):
        """Return how often something is in the log."""
        return sum(entry[0] == what for entry in self.log)


class FakeQueue:
    """One started virtqueue over lists.

    :ivar available: chains that wait for the device.
    :ivar returned: heads of the chains that came back, in order.
    :ivar breaks: why the ring is found to be lost at the next ``pop``.
    :ivar wanted: whether the driver wants to be notified.
    """

    def __init__(self, host, index, byte_order=ByteOrder.LITTLE):
        self._host = host
        self._index = index
        self._next_buffer = BUFFERS
        self._next_head = 0
        self.byte_order = byte_order
        self.desc = 0x3C1000 + index * 0x3000
        self.broken = None
        self.breaks = None
        self.wanted = True
        self.available: deque[Chain] = deque()
        self.held: list[Chain] = []
        self.returned: list[int] = []

    def pop(self, limit):
        if self.breaks is not None:
            self.broken = self.breaks
            return []
        popped = [self.available.popleft() for _ in range(min(limit, self.waiting))]
        self.held += popped
        return popped

    def push(self, chains):
        heads = [chain.head for chain in chains]
        for chain in chains:
            self.held.remove(chain)
        self._host.log.append(("push", self._index, heads))
        self.returned += heads
        return self.wanted

    def restart(self):
        """Begin again at the first chain that has not come back."""
        self.available.extendleft(reversed(self.held))
        self.held.clear()

    @property
    def waiting(self):
        return len(self.available)

    def offer(self, *pfns):
        """Make a buffer with these page numbers available; return its head."""
        letter = "<" if self.byte_order is ByteOrder.LITTLE else ">"
        return self.offer_bytes(struct.pack(f"{letter}{len(pfns)}I", *pfns))

    def offer_bytes(self, *parts, fault=None):
        """Make a buffer of any bytes available, a descriptor for each part."""
        readable = [(self.place(part), len(part)) for part in parts]
        return self.offer_chain(readable, fault=fault)

    def offer_chain(self, readable=(), writable=(), fault=None):
        """Make any chain available; return its head."""
        head, self._next_head = self._next_head, self._next_head + 1
        self.available.append(Chain(head, tuple(readable), tuple(writable), fault))
        return head

    def place(self, data):
        """Write bytes into guest memory; return their address."""
        if self._next_buffer + len(data) > self._host.memory.regions[0].end:
            self._next_buffer = BUFFERS
        address, self._next_buffer = self._next_buffer, self._next_buffer + len(data)
        self._host.memory.view(address, len(data))[:] = data
        return address


# --- the policy and who listens -----------------------------------------------------

SHUT = Gate(0, reclaim=False, targets=Answer.DEFERRED, reason="wait")
OPEN = Gate(1000, reclaim=True, targets=Answer.ACCEPTED)
REFUSING = Gate(0, reclaim=False, targets=Answer.REFUSED, reason="never")
GOOD = Verdict(Judgement.GOOD, "SCRIPTED")


def follow(requested):
    """Accept every target, reclaim, and advertise what the user asked for."""
    return Gate(requested, reclaim=True, targets=Answer.ACCEPTED)


class ScriptedPolicy:
    """A policy whose gate the test sets.

    :param gate: a gate, or a function that makes one of the requested target.

    :ivar after: gate to take from the first event of a type on.
    :ivar when: gate to take from a very event on.
    :ivar answers: what a hook returns, instead of what it should.
    :ivar raises: what a hook raises.
    :ivar refuses: states that make no sense to it.
    :ivar seen: events that it observed.
    """

    def __init__(self, gate=SHUT):
        self.gate = gate
        self.verdict = GOOD
        self.features = 0
        self.state: dict[str, Any] = {"scripted": 1}
        self.refuses: list[Any] = []
        self.loaded: list[Any] = []
        self.requests: list[int] = []
        self.after: dict[type, Any] = {}
        self.when: list[tuple[Any, Any]] = []
        self.answers: dict[str, Any] = {}
        self.raises: dict[str, BaseException] = {}
        self.seen: list[Any] = []

    @hookimpl
    def policy_features(self):
        return self._answer("policy_features", self.features)

    @hookimpl
    def policy_observe(self, event):
        self.seen.append(event)
        self.gate = self.after.get(type(event), self.gate)
        for expected, gate in self.when:
            if event == expected:
                self.gate = gate
        self._answer("policy_observe", None)

    @hookimpl
    def policy_gate(self, requested):
        self.requests.append(requested)
        gate = self.gate(requested) if callable(self.gate) else self.gate
        return self._answer("policy_gate", gate)

    @hookimpl
    def policy_verdict(self):
        return self._answer("policy_verdict", self.verdict)

    @hookimpl
    def policy_save(self):
        return self._answer("policy_save", self.state)

    @hookimpl
    def policy_load(self, state):
        self._answer("policy_load", None)
        if state in self.refuses:
            raise ValueError("no sense")
        self.loaded.append(state)

    def _answer(self, hook, default):
        if hook in self.raises:
            raise self.raises[hook]
        return self.answers.get(hook, default)


class Recorder:
    """An observer that keeps all events."""

    def __init__(self):
        self.events: list[Any] = []

    @hookimpl
    def balloon_event(self, event):
        self.events.append(event)

    def of(self, *kinds):
        """Return the events of these types."""
        return [event for event in self.events if isinstance(event, kinds)]


# --- all of them together -----------------------------------------------------------


@dataclass
class Rig:
    """A realized device with everything around it."""

    device: Device
    host: FakeHost
    policy: Any
    recorder: Recorder
    inflateq: FakeQueue = field(init=False)
    deflateq: FakeQueue = field(init=False)

    def __post_init__(self):
        self.inflateq = self.host.queues[0]
        self.deflateq = self.host.queues[1]

    @property
    def log(self):
        return self.host.log

    @property
    def faults(self):
        """What the driver did wrong, in sentences."""
        return [event.what for event in self.recorder.of(GuestFault)]

    def inflate(self, *pfns):
        """Let the driver send one inflate buffer and kick; return its head."""
        head = self.inflateq.offer(*pfns)
        self.device.queue_notify(0)
        return head

    def deflate(self, *pfns):
        """Let the driver send one deflate buffer and kick; return its head."""
        head = self.deflateq.offer(*pfns)
        self.device.queue_notify(1)
        return head

    def target(self):
        """Return the target that the driver reads."""
        return int.from_bytes(self.device.get_config(0, 4), "little")

    def write_actual(self, actual):
        """Let the driver write ``actual`` at once."""
        self.device.set_config(4, actual.to_bytes(4, "little"))

    def forget(self):
        """Empty the host's log and the list of events."""
        self.log.clear()
        self.recorder.events.clear()


def rig(policy=None, host=None, observers=(), **options):
    """Make a device and realize it.

    :param policy: an object or a name; a :class:`ScriptedPolicy`, shut, if ``None``.
    :param options: of the device.
    """
    policy = ScriptedPolicy() if policy is None else policy
    host = FakeHost() if host is None else host
    recorder = Recorder()
    options = DeviceOptions(**options)
    device = make_device(policy, observers=[*observers, recorder], options=options)
    device.realize(host)
    return Rig(device, host, policy, recorder)


def opened(host=None, gate=OPEN, **options):
    """Make and realize a device whose policy believes its driver."""
    return rig(ScriptedPolicy(gate), host, **options)


def told(host_page_size=65536, **facts):
    """Make such a device on a host with large pages, MUST_TELL_HOST negotiated."""
    made = opened(FakeHost(host_page_size=host_page_size, **facts))
    made.device.set_features(MUST_TELL_HOST)
    return made


def calls(policy, *observers):
    """Return the calls of a policy and of observers, with a manager of their own."""
    plugins = pluggy.PluginManager(hookspecs.PROJECT)
    plugins.add_hookspecs(hookspecs)
    plugins.register(policy, name="scripted")
    for number, observer in enumerate(observers):
        plugins.register(observer, name=f"observer {number}")
    return PolicyCalls(plugins, "scripted"), ObserverCalls(plugins)
