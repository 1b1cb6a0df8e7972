"""The balloon: the plugin that implements the device hooks.

It joins those that do not know each other: the host (queues, memory, clock), the rules
of the device (:mod:`~balloon_plugin.core`, :mod:`~balloon_plugin.inventory`) and the
policy behind its :mod:`~balloon_plugin.gatekeeper`. Its order of work is rule 2,
"decide, then answer": read the buffer, let the policy observe, take the new gate,
reclaim if allowed, return the buffer, notify.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from balloon_plugin import core, snapshot
from balloon_plugin.calls import ObserverCalls, PolicyCalls
from balloon_plugin.errors import HostError
from balloon_plugin.events import (
    ActualWritten,
    DriverReady,
    FeaturesAcked,
    GuestDescribed,
    GuestFacts,
    GuestFault,
    QueueSeen,
    TargetRead,
    TargetReply,
    TimePassed,
)
from balloon_plugin.gatekeeper import Gatekeeper
from balloon_plugin.hookspecs import Host, hookimpl
from balloon_plugin.inventory import Fault, Inventory, Pfns, take
from balloon_plugin.layouts import DEVICE_FEATURES_MASK, PAGE_SIZE, Feature, Queue
from balloon_plugin.status import Status

__all__ = ["Balloon"]

MOST_PAGES: Final = (1 << 32) - 1
"""Pages that ``num_pages`` can ask for: one less than 16 TiB."""

_MUST_TELL_HOST = Feature.VIRTIO_BALLOON_F_MUST_TELL_HOST.mask


@dataclass(slots=True)
class _Session:
    """What is forgotten when the driver resets the device (rule 4)."""

    config: core.ConfigSpace = field(default_factory=core.ConfigSpace)
    features: int | None = None
    ready: bool = False
    driver: bool = False
    queues: set[int] = field(default_factory=set)
    """Of which the policy knows where they are."""
    looked: bool = False
    """Whether the driver acted on a target, so that another must be announced to it."""
    announcement_due: bool = False
    faults: int = 0
    last_fault: str = ""
    lost: bool = False


class Balloon:
    """The virtio balloon device of one guest.

    :param policy: the calls of its one policy.
    :param observers: the calls of all who listen.
    """

    def __init__(self, policy: PolicyCalls, observers: ObserverCalls) -> None:
        self._gatekeeper = Gatekeeper(policy, observers, self._announce)
        self._host: Host | None = None
        self._facts: GuestFacts | None = None
        self._inventory = Inventory(self._gatekeeper)
        self._session = _Session()
        # Queue roles are fixed as long as only these two are offered (§5.5.2).
        self._roles: dict[int, Callable[[list[Pfns], Fault], None]] = {
            Queue.INFLATEQ: self._inflate,
            Queue.DEFLATEQ: self._inventory.deflate,
        }

    # --- life ---

    @hookimpl
    def realize(self, host: Host) -> None:
        """Bring the device to life."""
        if self._host is not None:
            message = "the device is realized already: make one device for each guest"
            raise HostError(message)
        self._host = host
        self.guest_changed()

    @hookimpl
    def unrealize(self) -> None:
        """Let go of the host, and of what was learnt of its guest."""
        self._begin_session()
        self._host = None

    @hookimpl
    def guest_changed(self) -> None:
        """Learn the host's facts anew; the record of pages that are still RAM stays."""
        facts = self._living_host().facts
        if facts == self._facts:
            return
        self._inventory.describe(facts)
        self._facts = facts
        self._gatekeeper.clamp(facts.ram_pages or None)
        self._gatekeeper.observe(GuestDescribed(facts))

    @hookimpl
    def reset(self) -> None:
        """End the driver session."""
        self._living_host()
        self._begin_session()

    def _begin_session(self) -> None:
        self._session = _Session()
        self._inventory.clear()
        self._gatekeeper.reset()

    @hookimpl
    def tick(self) -> None:
        """Let time pass."""
        self._gatekeeper.observe(TimePassed(self._living_host().now()))

    # --- negotiation ---

    @hookimpl
    def get_features(self) -> int:
        """Return the bits of the device type; of its own the balloon needs only one.

        Host pages larger than 4 KiB are collected over several buffers, which rule 1
        allows only if the driver tells before it uses a page again.
        """
        large = self._living_host().facts.host_page_size > PAGE_SIZE
        own = _MUST_TELL_HOST if large else 0
        return (own | self._gatekeeper.features()) & DEVICE_FEATURES_MASK

    @hookimpl
    def set_features(self, features: int) -> None:
        """Take the accepted bits; those never offered do not count."""
        surplus = features & DEVICE_FEATURES_MASK & ~self.get_features()
        if surplus:
            self._fault(f"the driver accepted features never offered: {surplus:#x}")
        self._session.features = features & ~surplus
        self._session.driver = True
        self._gatekeeper.observe(FeaturesAcked(features & ~surplus))

    @hookimpl
    def driver_ready(self) -> None:
        """Note DRIVER_OK, and send the config interrupt that had to wait for it."""
        self._session.ready = self._session.driver = True
        self._gatekeeper.observe(DriverReady())
        if self._session.announcement_due:
            self._announce()

    def _announce(self) -> None:
        """Let the driver read its target again; not before DRIVER_OK (D15).

        Old drivers begin before that; one that did not look yet will find it by itself.
        """
        if self._session.ready:
            self._session.announcement_due = False
            self._living_host().notify_config()
        else:
            self._session.announcement_due = self._session.looked

    # --- configuration space and target ---

    @hookimpl
    def get_config(self, offset: int, size: int) -> bytes:
        """Return bytes of the configuration space."""
        self._living_host()
        num_pages = self._gatekeeper.gate.num_pages
        data = self._session.config.read(offset, size, num_pages)
        if core.reads_target(offset, size):
            self._session.looked = True
            self._gatekeeper.observe(TargetRead(num_pages))
        return data

    @hookimpl
    def set_config(self, offset: int, data: bytes) -> None:
        """Take bytes that the driver wrote."""
        self._living_host()
        self._session.driver = self._session.looked = True
        if self._session.config.write(offset, data):
            self._gatekeeper.observe(ActualWritten(self._session.config.actual))

    @hookimpl
    def set_target(self, num_pages: int) -> TargetReply:
        """Take the user's target, clamped to the guest's RAM."""
        if num_pages < 0:
            message = f"a balloon of {num_pages} pages: the target must be 0 or more"
            raise HostError(message)
        # Before a front end has told of its memory, any target may be right.
        most = min(self._living_host().facts.ram_pages or MOST_PAGES, MOST_PAGES)
        remark = f"the guest has only {most} pages" if num_pages > most else ""
        return self._gatekeeper.set_target(min(num_pages, most), remark)

    # --- queues ---

    @hookimpl
    def queue_notify(self, index: int) -> bool:
        """Serve a queue within the budget; return whether more waits."""
        host, serve = self._living_host(), self._roles.get(index)
        queue = host.queue(index)
        if queue is None or serve is None or self._session.lost:
            return False

        def fault(what: str) -> None:
            self._fault(what, index)

        batch = take(queue, host.memory, fault)
        if batch.chains:
            self._see_queues(host)
            self._session.driver = self._session.looked = True
            serve([pfns for pfns in batch.buffers if pfns], fault)
            if queue.push(batch.chains):
                host.notify_queue(index)
        if queue.broken is not None:
            self._session.lost = True
            self._fault(queue.broken, index)
            host.needs_reset()
        return batch.more

    def _see_queues(self, host: Host) -> None:
        """Tell where the driver keeps its queues, before anything that is in them."""
        seen = self._session.queues
        if len(seen) == len(self._roles):
            return
        for index in self._roles:
            queue = host.queue(index)
            if queue is not None and index not in seen:
                seen.add(index)
                self._gatekeeper.observe(QueueSeen(int(index), queue.desc))

    def _inflate(self, buffers: list[Pfns], fault: Fault) -> None:
        told = bool((self._session.features or 0) & _MUST_TELL_HOST)
        self._inventory.inflate(buffers, fault, self._living_host(), told=told)

    # --- what people and snapshots see ---

    @hookimpl
    def query(self) -> Status:
        """Return all that is known of the device."""
        session, keeper = self._session, self._gatekeeper
        self._living_host()
        ram = self._facts.ram_pages if self._facts else 0
        actual = core.translate_actual(session.config.actual, keeper.gate.translation)
        return Status(
            policy=keeper.policy_name,
            requested=keeper.requested,
            advertised=keeper.gate.num_pages,
            actual=min(actual, ram),
            actual_clamped=actual > ram,
            ballooned=self._inventory.pages,
            reclaimed=self._inventory.reclaimed,
            ram=ram,
            features=session.features,
            driver=session.driver,
            faults=session.faults,
            last_fault=session.last_fault,
            accepted=keeper.accepted,
            gate=keeper.gate,
            verdict=keeper.verdict,
        )

    @hookimpl
    def save(self) -> dict[str, Any]:
        """Return the whole driver session."""
        self._living_host()
        session = self._session
        return snapshot.pack(
            **session.config.save(),
            faults=session.faults,
            last_fault=session.last_fault,
            features=session.features,
            ready=session.ready,
            ledger=self._inventory.save(),
            policy=self._gatekeeper.save(),
        )

    @hookimpl
    def load(self, state: dict[str, Any]) -> None:
        """Take over a saved session."""
        self._living_host()
        saved = snapshot.unpack(state)
        session = _Session(features=saved["features"], ready=saved["ready"])
        session.driver = session.ready or session.features is not None
        session.looked = session.driver
        session.config = core.ConfigSpace.load(saved)
        session.faults, session.last_fault = saved["faults"], saved["last_fault"]
        try:
            self._inventory.load(saved["ledger"])
        except ValueError as error:
            message = f"the saved balloon does not fit this guest's RAM: {error}"
            raise HostError(message) from error
        self._session = session
        ballooned = saved["actual"] or self._inventory.pages
        self._gatekeeper.load(saved["policy"], ballooned)
        self._inventory.adopt_translation()

    def _fault(self, what: str, index: int | None = None) -> None:
        self._session.faults += 1
        self._session.last_fault = what
        self._gatekeeper.emit(GuestFault(what, index))

    def _living_host(self) -> Host:
        if self._host is None:
            message = "the device has no host: call realize(host) before any other hook"
            raise HostError(message)
        return self._host
