"""Real guests in QEMU, each lived through from boot to power-off.

Everything is asserted from two sides: what the guest says on its own console, and what
the device did. Corruption can be latent, so a guest that looks well has to take most of
its memory in the end and find in it what it wrote.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from unittest import mock

from balloon_plugin import narrate
from balloon_plugin.boot.guest import GuestReport, Heard, parse_report
from balloon_plugin.boot.plan import Plan
from balloon_plugin.boot.qemu import QemuOptions, Transport, find_qemu
from balloon_plugin.boot.stage import Stage
from balloon_plugin.boot.talk import GoneWrongError, Talk
from balloon_plugin.boot.view import View
from balloon_plugin.errors import HostError
from balloon_plugin.events import (
    Answer,
    ByteOrder,
    TargetRead,
    TimePassed,
    Verdict,
)
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.hosts.vhost_user import protocol, requests
from balloon_plugin.layouts import Feature

STOCK = "virtio_balloon"
PRE34 = "virtio_balloon_pre34"

MEBIBYTE = 1 << 20
PIECES = MEBIBYTE // 4096

MEMORY = 192
"""MiB of RAM; a guest needs some 30 of them for itself."""

KEPT = 16
"""MiB that the guest holds from before its driver comes."""

TARGETS = (16, 48, 4, 32, 0)
"""MiB, up and down, and at last nothing."""

STARVED = 16
"""MiB free, below which a guest has been robbed: no target leaves it less than 90."""

TORN = ((0x0FA0, 0x1001), (0x00FF, 0x1100), (0x1100, 0x00FF), (0x1001, 0x0FA0))
"""Targets in pages, each read while it becomes the other.

A legacy driver reads byte by byte, and finds a value that was never shown.
"""

SETTLE = 12.0
"""Seconds for a verdict: more than the default policy's patience, twice."""

REACH = 15.0
"""Seconds for a target; a guest alone on a core needs half a second."""

STAYS = 0.1
"""Seconds that it has to stay there: a runaway balloon has every size once."""

CHANGES = 12
"""Changes of the target in a life that is not as short as possible."""

PATIENCE = 90.0
"""Seconds for all else together, on a machine that is busy."""


# --- what is needed -----------------------------------------------------------------


@dataclass(frozen=True)
class Tools:
    """A QEMU, and a folder of guests built by tests/guests/build.sh."""

    qemu: str
    guests: Path


def cache():
    """Return the folder in which .ci/run keeps what it makes."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "balloon_plugin"


def qemu_command():
    """Return the command of QEMU, by environment or where .ci/run puts it."""
    own = cache() / "qemu/qemu-system-aarch64"
    usual = own if own.exists() else "qemu-system-aarch64"
    return os.environ.get("BALLOON_QEMU", str(usual))


def find_tools():
    """Find both, by environment or where .ci/run puts them."""
    tools = Tools(
        qemu_command(), Path(os.environ.get("BALLOON_GUESTS", cache() / "guests"))
    )
    try:
        find_qemu(options_for(Life("arm64be-64k"), tools))
    except HostError as error:
        message = f"{error}. tests/guests/get-qemu.sh and build.sh make what is needed"
        raise HostError(message) from error
    return tools


def find_distribution():
    """Return how to boot a kernel of Debian, x86-64, as it was installed.

    The QEMU for it is beside the other one.
    """
    kernel = Path(os.environ.get("BALLOON_KERNEL", cache() / "kernel"))
    options = QemuOptions(
        kernel / "vmlinuz",
        modules=kernel / "modules",
        arch="x86_64",
        command=str(Path(qemu_command()).with_name("qemu-system-x86_64")),
    )
    try:
        find_qemu(options)
    except HostError as error:
        message = f"{error}. tests/guests/get-qemu.sh and get-kernel.sh get it"
        raise HostError(message) from error
    return options


# --- a life -------------------------------------------------------------------------


@dataclass(frozen=True)
class Life:
    """What a guest is, and what it is put under.

    ``order`` and ``page`` are what the host is told of it. ``earlier`` is a driver that
    has the balloon until the guest reboots. Without ``indirect`` the driver cannot
    accept INDIRECT_DESC, which those before Linux 2.6.31 did not know, and without
    ``packed`` not RING_PACKED, which none knew before 5.0. Some targets change when
    ``torn`` bytes of them were read.
    """

    guest: str
    driver: str = STOCK
    policy: str = "evidence"
    transport: Transport = Transport.LEGACY
    order: ByteOrder | None = None
    page: int | None = None
    earlier: str = ""
    indirect: bool = True
    packed: bool = True
    torn: int = 0

    def __str__(self):
        told = "told" if self.order or self.page else ""
        ring = "" if self.packed else "split"
        torn = f"torn{self.torn}" if self.torn else ""
        words = (self.guest, self.earlier, self.driver, self.policy, told, ring, torn)
        return " ".join([*filter(None, words), self.transport.value])


@dataclass(frozen=True)
class Change:
    """One change of the target, in MiB, and what came of it."""

    target: int
    answer: Answer
    reached: bool
    actual: int
    reclaimed: int


@dataclass
class Record:
    """What was seen of one life, in order.

    ``failure`` says why it ended early, ``clean`` whether the guest switched itself
    off, ``handshake`` how many seconds passed from its driver to the verdict.
    """

    life: Life
    verdict: Verdict | None = None
    handshake: float = 0.0
    changes: list[Change] = field(default_factory=list)
    reports: list[GuestReport] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    parked: int = 0
    used: int = 0
    failure: str | None = None
    trouble: str | None = None
    clean: bool = False
    seconds: float = 0.0

    @property
    def alive(self):
        """It lived to the end, used its memory, and lost nothing."""
        return (
            self.clean
            and self.failure is None
            and self.used > 0
            and not any(report.lost for report in self.reports)
        )

    @property
    def starved(self):
        """The guest has next to nothing left, by its own newest numbers."""
        return bool(self.reports) and self.reports[-1].free < STARVED * MEBIBYTE

    @property
    def usable(self):
        """Every target was accepted, reached and really reclaimed."""
        return bool(self.changes) and all(
            change.answer is Answer.ACCEPTED
            and change.reached
            # The last pages of a policy's test were taken while nothing was reclaimed.
            and change.target * PIECES - 64 <= change.reclaimed <= change.actual
            for change in self.changes
        )

    @property
    def refused(self):
        return {change.answer for change in self.changes} == {Answer.REFUSED}

    @property
    def reclaimed(self):
        return max((change.reclaimed for change in self.changes), default=0)

    @property
    def largest(self):
        """Pages in the balloon at the most, by the driver's word."""
        return max((change.actual for change in self.changes), default=0)

    def __str__(self):
        """Everything, for whoever has to find out why a test failed."""
        lines = [str(self.life), f"verdict: {self.verdict}"]
        lines += [str(change) for change in self.changes]
        lines += [f"failure: {self.failure}", f"parked: {self.parked}"]
        return "\n".join([*lines, "", *self.trace[-300:]])


def options_for(life, tools):
    """Return how to boot the guest of a life."""
    return QemuOptions(
        tools.guests / f"{life.guest}.Image.gz",
        tools.guests / f"{life.guest}.initrd.gz",
        arch="aarch64",
        command=tools.qemu,
        append="interval=500",
        transport=life.transport,
        driver=life.driver,
        byte_order=life.order,
        page_size=life.page,
    )


def live(life, tools, seconds, record_to=None):
    """Let a guest live, with changes of its target for so many seconds.

    :param record_to: where to write the device's trace.
    """
    plan = Plan(
        life.policy,
        target=1,
        memory=MEMORY * MEBIBYTE,
        timeout=seconds + PATIENCE,
        record=record_to,
    )
    record, start = Record(life), time.monotonic()
    machine = find_qemu(options_for(life, tools))
    with _offered(life), Stage(machine, plan) as stage:
        talk = Talk(stage, plan, lambda _: None, start)
        talk.view = _Witness(record)
        stage.with_device(lambda device: device.plugins.register(_Tracer(record)))
        _Living(record, stage, talk, machine.driver).live(seconds)
    record.trouble = talk.view.trouble
    record.seconds = time.monotonic() - start
    return record


@contextlib.contextmanager
def _offered(life):
    """Offer the driver what it knows; no more than one guest in the process."""
    bits = requests.TRANSPORT
    if not life.indirect:
        bits &= ~Feature.VIRTIO_RING_F_INDIRECT_DESC.mask
    if not life.packed or life.driver.startswith(PRE34):
        bits &= ~Feature.VIRTIO_F_RING_PACKED.mask
    with (
        mock.patch.object(requests, "TRANSPORT", bits),
        mock.patch.object(protocol, "TRANSPORT", bits),
    ):
        yield


class _Living:
    """The chapters of a life; one that goes wrong is the last."""

    def __init__(self, record, stage, talk, driver):
        self._record = record
        self._stage = stage
        self._talk = talk
        self._driver = driver
        self._target = 0

    def live(self, seconds):
        try:
            self._boot()
            if self._record.life.earlier:
                self._live_before()
            self._settle(self._driver)
            if self._record.life.torn:
                self._tear()
            self._change_targets(seconds)
            self._use_memory()
            self._power_off()
        except GoneWrongError as error:
            self._record.failure = str(error)
            self._linger()

    def _boot(self):
        talk = self._talk
        talk.wait(lambda: talk.view.booted, "not booted")
        self._total = talk.ask(f"alloc {KEPT}").total

    def _live_before(self):
        """Live another life, with a balloon, that ends in a reboot."""
        talk = self._talk
        self._settle(self._record.life.earlier)
        self._change(TARGETS[0])
        self._record.changes.clear()
        talk.view.booted = talk.view.driver_ready = False
        talk.send("reboot")
        self._boot()

    def _settle(self, driver):
        """Load a driver, and wait until targets are no longer deferred."""
        talk, view = self._talk, self._talk.view
        talk.send(f"insmod {driver}")
        talk.wait(lambda: view.driver_ready or view.failure, "no driver")
        start = time.monotonic()
        self._wait(
            lambda: view.gate.targets is not Answer.DEFERRED or self._record.starved,
            SETTLE,
        )
        self._record.handshake = time.monotonic() - start
        if self._record.starved and view.gate.targets is Answer.DEFERRED:
            raise GoneWrongError("the test takes all memory")
        talk.hear_report("insmod")
        self._record.verdict = self._query().verdict

    def _tear(self):
        """Change targets while they are being read."""
        tearer = _Tearer(self._stage)
        for first, then in TORN:
            tearer.wait(self._record.life.torn, then)
            self._talk.device(lambda device, first=first: device.set_target(first))
            self._held_since = math.inf
            self._wait(lambda then=then: self._stays(then), REACH)

    def _change_targets(self, seconds):
        end = time.monotonic() + seconds
        for target in cycle(TARGETS):
            self._change(target)
            if target == TARGETS[-1] and time.monotonic() >= end:
                return
            self._wait(lambda: False, seconds / CHANGES)

    def _change(self, target):
        pages, view = target * PIECES, self._talk.view
        reply = self._talk.device(lambda device: device.set_target(pages))
        accepted, grows = reply.answer is Answer.ACCEPTED, target > self._target
        self._target = target
        self._held_since = math.inf
        self._wait(
            lambda: self._stays(pages) or (grows and self._record.starved),
            REACH if accepted else STAYS,
        )
        status, reached = self._query(), view.holds(pages)
        self._record.changes.append(
            Change(target, reply.answer, reached, status.actual, status.reclaimed)
        )

    def _stays(self, pages):
        now = time.monotonic()
        held = self._talk.view.holds(pages)
        self._held_since = min(self._held_since, now) if held else math.inf
        return now - self._held_since >= STAYS

    def _use_memory(self):
        """Take most of what is free, and see that all of it keeps its content."""
        report = self._talk.ask("device")
        self._record.parked = self._total - report.total
        most = report.free * 6 // 10 // MEBIBYTE
        self._talk.ask(f"alloc {most}")
        report = self._talk.ask("device")
        if report.lost or report.kept != (KEPT + most) * PIECES:
            raise GoneWrongError(f"the guest lost content: {report}")
        self._record.used = most

    def _power_off(self):
        talk = self._talk
        talk.send("poweroff")
        talk.wait(lambda: talk.view.ended is not None, "not off")
        self._record.clean = talk.view.ended == 0

    def _linger(self):
        """Hear what else the guest has to say about its end."""
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            happening = self._stage.next(0.1)
            if happening is not None:
                list(self._talk.view.take(happening))

    def _wait(self, done: Callable[[], bool], seconds: float):
        """Wait for something that need not come."""
        end = time.monotonic() + seconds
        self._talk.wait(lambda: done() or time.monotonic() >= end, "")

    def _query(self):
        return self._talk.device(lambda device: device.query())


class _Witness(View):
    """A view that keeps all that the guest said."""

    def __init__(self, record):
        super().__init__()
        self._record = record

    def take(self, happening):
        if isinstance(happening, Heard):
            self._record.console.append(happening.line)
            self._record.trace.append(f"guest: {happening.line}")
            report = parse_report(happening.line)
            if report is not None:
                self._record.reports.append(report)
        return super().take(happening)


class _Tracer:
    """An observer that puts everything the device sees into words."""

    def __init__(self, record):
        self._record = record

    @hookimpl
    def balloon_event(self, event):
        if not isinstance(event, TimePassed):
            self._record.trace.append(narrate.sentence(event))


class _Tearer:
    """An observer that changes the target as soon as some bytes of it were read.

    QEMU asks for the configuration space with each byte that a legacy driver reads.
    """

    def __init__(self, stage):
        self._stage = stage
        self._left = 0
        self._then = 0
        stage.with_device(lambda device: device.plugins.register(self))

    def wait(self, reads, then):
        self._left, self._then = reads, then

    @hookimpl
    def balloon_event(self, event):
        if not (isinstance(event, TargetRead) and self._left):
            return
        self._left -= 1
        if not self._left:
            change = partial(self._stage._device.set_target, self._then)
            self._stage._daemon._loop.soon(change)
