"""The balloon: the plugin that implements the device hooks.

It joins those that do not know each other: the host (queues, memory, clock), the rules
of the device (:mod:`~balloon_plugin.core`, :mod:`~balloon_plugin.inventory`,
:mod:`~balloon_plugin.duties`) and the policy behind its
:mod:`~balloon_plugin.gatekeeper`. Its order of work is rule 2,
"decide, then answer": read the buffer, let the policy observe, take the new gate,
reclaim if allowed, return the buffer, notify.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from balloon_plugin import core, snapshot
from balloon_plugin.calls import ObserverCalls, PolicyCalls
from balloon_plugin.duties.table import Duties
from balloon_plugin.errors import HostError
from balloon_plugin.events import (
    ActualWritten,
    DriverReady,
    Event,
    FeaturesAcked,
    GuestDescribed,
    GuestFacts,
    QueueSeen,
    TargetRead,
    TargetReply,
    TimePassed,
    Translation,
)
from balloon_plugin.features import DeviceOptions, config_size
from balloon_plugin.gatekeeper import Gatekeeper
from balloon_plugin.hookspecs import Host, hookimpl
from balloon_plugin.inventory import Inventory
from balloon_plugin.layouts import DEVICE_FEATURES_MASK, PAGE_SIZE, Feature
from balloon_plugin.service import Service
from balloon_plugin.session import Session
from balloon_plugin.status import Status

__all__ = ["Balloon"]

MOST_PAGES: Final = (1 << 32) - 1
"""Pages that ``num_pages`` can ask for: one less than 16 TiB."""

_HOST: Final = tuple(name for name in vars(Host) if not name.startswith("_"))
"""What a host has to have; one without it would fail in the middle of a guest."""

_MUST_TELL_HOST = Feature.VIRTIO_BALLOON_F_MUST_TELL_HOST.mask


class Balloon:
    """The virtio balloon device of one guest.

    :param policy: the calls of its one policy.
    :param observers: the calls of all who listen.
    :param options: which features it offers.
    """

    def __init__(
        self, policy: PolicyCalls, observers: ObserverCalls, options: DeviceOptions
    ) -> None:
        self._gatekeeper = Gatekeeper(policy, observers, self._announce)
        self._options = options
        self._host: Host | None = None
        self._facts: GuestFacts | None = None
        self._inventory = Inventory(self._gatekeeper)
        self._duties = Duties(self._gatekeeper)
        self._session = Session()
        self._service = Service(self._gatekeeper, self._inventory, self._duties)

    # --- life ---

    @hookimpl
    def realize(self, host: Host) -> None:
        """Bring the device to life."""
        if self._host is not None:
            message = "the device is realized already: make one device for each guest"
            raise HostError(message)
        missing = [name for name in _HOST if not hasattr(host, name)]
        if missing:
            what = f"{type(host).__name__} is not a host: it lacks {', '.join(missing)}"
            raise HostError(f"{what}; see balloon_plugin.Host")
        self._host = host
        try:
            self.guest_changed()
        except HostError:
            self._host = None
            raise

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
        self._duties.guest_changed()
        self._facts = facts
        self._gatekeeper.clamp(facts.ram_pages or None)
        self._gatekeeper.observe(GuestDescribed(facts))

    @hookimpl
    def reset(self) -> None:
        """End the driver session."""
        self._living_host()
        self._begin_session()

    def _begin_session(self) -> None:
        self._session = Session()
        self._duties.reset()
        self._inventory.clear()
        self._gatekeeper.reset()

    @hookimpl
    def tick(self) -> None:
        """Let time pass; do what has to be done without a kick."""
        host = self._living_host()
        self._gatekeeper.observe(TimePassed(host.now()))
        self._offered()
        self._service.pass_time(host, self._session)

    # --- negotiation ---

    @hookimpl
    def get_features(self) -> int:
        """Return the bits of the device type: the same ones as long as a driver stays.

        Host pages larger than 4 KiB are collected over several buffers, which rule 1
        allows only if the driver tells before it uses a page again.
        """
        session = self._session
        if session.offered is None or session.features is None:
            large = self._living_host().facts.host_page_size > PAGE_SIZE
            own = self._options.features | (_MUST_TELL_HOST if large else 0)
            session.offered = (own | self._gatekeeper.features()) & DEVICE_FEATURES_MASK
            session.config.size = config_size(session.offered)
        return session.offered

    def _offered(self) -> int:
        """Return the bits on offer without asking the policy again."""
        offered = self._session.offered
        return self.get_features() if offered is None else offered

    @hookimpl
    def set_features(self, features: int) -> None:
        """Take the accepted bits; those never offered do not count."""
        surplus = features & DEVICE_FEATURES_MASK & ~self._offered()
        if surplus:
            what = f"the driver accepted features never offered: {surplus:#x}"
            self._service.fault(self._session, what)
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
        self._offered()
        num_pages = self._gatekeeper.gate.num_pages
        config, command = self._session.config, self._duties.hinting.command
        data = config.read(offset, size, num_pages, command)
        if core.reads_target(offset, size):
            self._session.looked = True
            self._gatekeeper.observe(TargetRead(config.target))
        return data

    @hookimpl
    def set_config(self, offset: int, data: bytes) -> None:
        """Take bytes that the driver wrote."""
        self._offered()
        self._session.driver = self._session.looked = True
        if self._session.config.write(offset, data):
            self._gatekeeper.observe(ActualWritten(self._session.config.actual))

    @hookimpl
    def set_target(self, num_pages: int) -> TargetReply:
        """Take the user's target, clamped to the guest's RAM."""
        if type(num_pages) is not int or num_pages < 0:
            message = (
                f"a balloon of {num_pages!r} pages: the target must be a whole number, "
                "0 or more"
            )
            raise HostError(message)
        # Before a front end has told of its memory, any target may be right.
        most = min(self._living_host().facts.ram_pages or MOST_PAGES, MOST_PAGES)
        remark = f"the guest has only {most} pages" if num_pages > most else ""
        self._gatekeeper.shrunk(self._inventory.pages)
        return self._gatekeeper.set_target(min(num_pages, most), remark)

    @hookimpl
    def set_inhibited(self, reason: str | None) -> None:
        """Forbid discards for a reason, or allow them again."""
        self._living_host()
        self._gatekeeper.inhibit(reason, self._inventory.pages)

    @hookimpl
    def set_policy(self, name: str) -> None:
        """Let another policy judge the driver from now on."""
        self._living_host()
        session, keeper = self._session, self._gatekeeper
        unseen = keeper.features() & ~(session.offered or 0)
        if session.features is not None and unseen:
            message = (
                f"the policy {name} judges by feature bits that this driver was never "
                f"offered ({unseen:#x}): change the policy before the driver starts"
            )
            raise HostError(message)
        empty = not (session.config.actual or self._inventory.pages)
        keeper.change_policy(name, self._known(), empty=empty)

    def _known(self) -> Iterator[Event]:
        """Yield what was told of the guest and its driver, and is still true."""
        if self._facts is not None:
            yield GuestDescribed(self._facts)
        yield from self._known_of_driver()

    def _known_of_driver(self) -> Iterator[Event]:
        session = self._session
        if session.features is not None:
            yield FeaturesAcked(session.features)
        if session.ready:
            yield DriverReady()
        for index in sorted(session.seen):
            queue = self._living_host().queue(index)
            if queue is not None:
                yield QueueSeen(int(index), queue.desc)

    # --- queues ---

    @hookimpl
    def queue_notify(self, index: int) -> bool:
        """Serve a queue within the budget; return whether more waits."""
        self._offered()
        return self._service.serve(index, self._living_host(), self._session)

    # --- statistics and hints ---

    @hookimpl
    def set_stats_interval(self, seconds: int) -> None:
        """Ask for statistics every so many seconds, or never."""
        host = self._living_host()
        self._duties.statistics.set_interval(seconds, host.now())
        self._offered()
        self._service.ask_for_statistics(host, self._session)

    @hookimpl
    def start_hinting(self) -> int:
        """Ask the driver for hints at all its free pages."""
        host, session = self._living_host(), self._session
        if not (session.ready and session.terms.hints):
            message = (
                "no driver that hints at its free pages is ready: offer it the feature "
                "hinting, and wait until it has started"
            )
            raise HostError(message)
        command = self._duties.hinting.start()
        host.notify_config()
        return command

    @hookimpl
    def stop_hinting(self) -> None:
        """Let the driver use its hinted pages again."""
        host = self._living_host()
        if self._duties.hinting.stop() and self._session.ready:
            host.notify_config()

    # --- what people and snapshots see ---

    @hookimpl
    def query(self) -> Status:
        """Return all that is known of the device."""
        session, keeper, host = self._session, self._gatekeeper, self._living_host()
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
            offered=self._offered(),
            stats=self._duties.statistics.sample(host.now()),
            stats_interval=self._duties.statistics.interval,
            reported=self._duties.reporting.given_back,
            hints=self._duties.hinting.hints(),
            inhibited=keeper.inhibited,
        )

    @hookimpl
    def save(self) -> dict[str, Any]:
        """Return the whole driver session."""
        now = self._living_host().now()
        return snapshot.pack(
            **self._session.save(),
            **self._duties.save(now),
            ledger=self._inventory.save(),
            policy=self._gatekeeper.save(),
        )

    @hookimpl
    def load(self, state: dict[str, Any]) -> None:
        """Take over a saved session."""
        now = self._living_host().now()
        saved = snapshot.unpack(state)
        session = Session.load(saved)
        translation = Translation(**saved["policy"]["translation"])
        try:
            self._inventory.load(saved["ledger"], translation)
        except ValueError as error:
            message = f"the saved balloon does not fit this guest's RAM: {error}"
            raise HostError(message) from error
        self._session = session
        self._duties.load(saved, now)
        ballooned = saved["actual"] or self._inventory.pages
        anew = self._gatekeeper.load(saved["policy"], ballooned)
        if anew:
            self._introduce()

    def _introduce(self) -> None:
        """Make a restored driver and the policy that begins anew with it acquainted."""
        for event in self._known_of_driver():
            self._gatekeeper.observe(event)
        # What it read last was another policy's target.
        self._announce()

    def _living_host(self) -> Host:
        if self._host is None:
            message = "the device has no host: call realize(host) before any other hook"
            raise HostError(message)
        return self._host
