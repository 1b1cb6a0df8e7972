"""Every hook, its contract, and the Host protocol: the promises of this package.

Device hooks are called by a host on the balloon, policy hooks by the balloon on the one
policy that it has, the observer hook by the balloon on everyone who listens. All are
synchronous, and all are called from one thread at a time per device.

The specifications may grow new arguments; implementations name only those that they
use, so that they keep working. A hook that is retired warns for one minor version
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import pluggy

from balloon_plugin.events import (
    ByteOrder,
    Event,
    Gate,
    GuestFacts,
    Run,
    TargetReply,
    Verdict,
)
from balloon_plugin.memory import GuestMemory
from balloon_plugin.status import Status
from balloon_plugin.virtqueue import Chain

__all__ = ["PROJECT", "Host", "VirtQueue", "hookimpl", "hookspec"]

PROJECT = "balloon_plugin"
"""Name under which the markers and the entry-point groups go."""

hookspec = pluggy.HookspecMarker(PROJECT)
"""Marks the specification of a hook; for this module."""

hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function or method as the implementation of a hook of this package."""


# --- what a host provides -----------------------------------------------------------


class VirtQueue(Protocol):
    """One started virtqueue, as the device uses it.

    :func:`balloon_plugin.virtqueue.open_queue` opens one in guest memory.
    """

    @property
    def byte_order(self) -> ByteOrder:
        """Byte order of page numbers: the guest's on legacy, little with VERSION_1."""

    @property
    def desc(self) -> int:
        """Guest-physical address of the descriptor table, or of the descriptor ring."""

    @property
    def broken(self) -> str | None:
        """Why the ring itself is lost, or ``None``; a broken queue yields no chains."""

    def pop(self, limit: int) -> list[Chain]:
        """Take up to ``limit`` available chains, in order.

        If that leaves none, the driver is going to kick when it has more.
        """

    def push(self, chains: Sequence[Chain]) -> bool:
        """Return chains to the driver with used length 0 (D5), all in one update.

        :returns: whether the driver wants to be notified of it.
        """


class Host(Protocol):
    """What ``realize`` hands to the device: the guest's memory, queues and clock."""

    @property
    def memory(self) -> GuestMemory:
        """The guest's memory as it is now (regions may come and go)."""

    @property
    def facts(self) -> GuestFacts:
        """What the host knows of the guest as it is now."""

    def queue(self, index: int) -> VirtQueue | None:
        """Return queue ``index`` if the driver has started it, else ``None``."""

    def discard(self, runs: Sequence[Run]) -> int:
        """Give pages back to the host's operating system.

        The device promises that the runs are inside RAM, sorted, disjoint, and made of
        whole host pages. The guest reads zeros there afterwards, or what was there if
        a page was not given back after all (VIRTIO 1.3 §5.5.6.7.2 allows no third).

        :returns: how many 4 KiB pages were really given back.
        """

    def notify_queue(self, index: int) -> None:
        """Send the driver a used-buffer notification for queue ``index``."""

    def notify_config(self) -> None:
        """Send the driver a configuration change notification (a config interrupt)."""

    def needs_reset(self) -> None:
        """Tell the driver that the device is lost until reset (DEVICE_NEEDS_RESET)."""

    def now(self) -> float:
        """Return a monotonic time in seconds."""


# --- device hooks: called by a host -------------------------------------------------


@hookspec
def realize(host: Host) -> None:
    """Bring the device to life in ``host``; the first hook of all, called once.

    :param host: kept until ``unrealize``.

    .. versionadded:: 0.1
    """


@hookspec
def unrealize() -> None:
    """Let go of the host and its memory; the last hook, after unplug or at shutdown.

    .. versionadded:: 0.1
    """


@hookspec
def reset() -> None:
    """End the driver session: the driver wrote status 0 (VIRTIO 1.3 §2.4.1).

    Called on every device reset, so also on reboot, kexec and module removal. The
    verdict, ``actual`` and the record of ballooned pages are forgotten; the user's
    target is kept.

    .. versionadded:: 0.1
    """


@hookspec(firstresult=True)
def get_features() -> int:
    """Return the device-type feature bits to offer; the host adds its ring's own.

    Called whenever the driver (or front end) reads features.

    :returns: a mask of bits 0 to 23.

    .. versionadded:: 0.1
    """


@hookspec
def set_features(features: int) -> None:
    """Take the feature bits that the driver accepted.

    Called once per driver session, before ``driver_ready``.

    :param features: all 64 bits, transport and ring bits included.

    .. versionadded:: 0.1
    """


@hookspec
def driver_ready() -> None:
    """Learn that the driver set DRIVER_OK, or the transport's nearest equivalent.

    Legacy drivers may read config and kick queues before this (D19).

    .. versionadded:: 0.1
    """


@hookspec(firstresult=True)
def get_config(offset: int, size: int) -> bytes:
    """Return bytes of the configuration space (VIRTIO 1.3 §5.5.4).

    Called for each access of the driver, at any time, with any width.

    :param offset: first byte, 0 or more.
    :param size: bytes.
    :returns: exactly ``size`` bytes; those outside the space are zero.

    .. versionadded:: 0.1
    """


@hookspec
def set_config(offset: int, data: bytes) -> None:
    """Take bytes that the driver wrote to the configuration space.

    Only ``actual`` and ``poison_val`` are the driver's to write, and ``actual`` counts
    when its most significant byte is written (D6). Other bytes are ignored.

    :param offset: first byte, 0 or more.
    :param data: the bytes written, in one access of the driver.

    .. versionadded:: 0.1
    """


@hookspec(firstresult=True)
def queue_notify(index: int) -> bool:
    """Serve queue ``index``: the driver kicked it. Spurious calls are harmless.

    One call does a bounded amount of work, so that one guest cannot starve others. With
    VERSION_1 nothing is served before ``driver_ready`` (D15); the host calls after it.

    :param index: the queue's number among those offered.
    :returns: whether more buffers wait, so that the host calls again, after others.

    .. versionadded:: 0.1
    """


@hookspec(firstresult=True)
def set_target(num_pages: int) -> TargetReply:
    """Ask for ``num_pages`` pages in the balloon. Called on behalf of the user.

    :param num_pages: 0 or more; more than the guest's RAM is clamped, and said so.
    :returns: accepted, deferred or refused, with the reason.
    :raises HostError: if ``num_pages`` is negative.

    .. versionadded:: 0.1
    """


@hookspec(firstresult=True)
def query() -> Status:
    """Return all that is known of the device at this moment, for people and programs.

    .. versionadded:: 0.1
    """


@hookspec
def set_stats_interval(seconds: int) -> None:
    """Ask the driver for memory statistics every so many seconds, or never.

    Called on behalf of the user, at any time. The first request goes out at once, the
    others with a ``tick``. None goes out while the policy defers targets, because a
    request makes old drivers read their target and write ``actual``, and that must not
    disturb a test. The interval outlives resets and is part of a snapshot; to begin
    with it is 0.

    :param seconds: 1 to 2**32 - 1, or 0 to ask no more.
    :raises HostError: if it is anything else.

    .. versionadded:: 0.1
    """


@hookspec
def set_inhibited(reason: str | None) -> None:
    """Forbid to give memory back, or allow it again. Called on behalf of the user.

    For memory that must stay where it is, as with a passed-through device. Nothing is
    discarded meanwhile, neither pages of the balloon nor those that a driver reports.
    The balloon may shrink but not grow: a larger target is kept and answered with
    "deferred", and the driver reads it when discards are allowed again. Pages that came
    into the balloon in between are then given back if MUST_TELL_HOST was negotiated.
    Otherwise the driver may be using them (D4), so that they stay as they are until it
    deflates and inflates them again; ``ballooned`` and ``reclaimed`` of a query differ
    by them. Outlives resets, and is not part of a snapshot: it is about this host.

    :param reason: why, for the person whose target waits; ``None`` to allow discards.

    .. versionadded:: 0.1
    """


@hookspec(firstresult=True)
def start_hinting() -> int:
    """Ask the driver for hints at all its free pages. Called by who migrates a guest.

    Observers see them as :class:`~balloon_plugin.events.PagesHinted`. If hints are
    under way they begin anew, with another id.

    :returns: the id of this command, 2 or more; none is used twice.
    :raises HostError: if no driver that hints is ready.

    .. versionadded:: 0.1
    """


@hookspec
def stop_hinting() -> None:
    """Let the driver use its hinted pages again: hints are needed no more.

    Called when a migration has ended or failed. Harmless if nothing was started.

    .. versionadded:: 0.1
    """


@hookspec
def set_policy(name: str) -> None:
    """Learn that another policy has taken the place of the one before.

    Called by :func:`balloon_plugin.change_policy` with the new policy registered and
    the old one gone. The new one is shown what is still true: the guest, the features
    that the driver accepted, whether it is ready, where its queues are, what it read as
    its target last unless that is 0, and the user's target. It judges a balloon at rest
    as that of a new driver. A balloon in use on which it has no verdict is held as it
    is until the driver is reset.

    :param name: the new policy, with its options.
    :raises HostError: if the driver was never offered the feature bits that the new
        policy judges by; the caller then brings the old one back.

    .. versionadded:: 0.1
    """


@hookspec
def tick() -> None:
    """Let time pass; the host calls this about once a second while it runs.

    .. versionadded:: 0.1
    """


@hookspec
def guest_changed() -> None:
    """Learn that the host's ``memory`` or ``facts`` are others than before.

    .. versionadded:: 0.1
    """


@hookspec(firstresult=True)
def save() -> dict[str, Any]:
    """Return the whole driver session as a value that JSON can carry.

    Called while no queue is being served, for a snapshot or a migration.

    .. versionadded:: 0.1
    """


@hookspec
def load(state: dict[str, Any]) -> None:
    """Take over a saved session, instead of a new one. Called right after ``realize``.

    A state with pages in the balloon but no verdict of this policy is not probed: the
    balloon is held as it is until the driver is reset, and ``query`` says so. So is an
    empty one whose driver read another target than 0 last, and may be on its way. With
    any other the policy is shown what is known of the driver, and judges it as a new
    one.

    :param state: what ``save`` of this or an older version returned.
    :raises HostError: if the state is damaged or from a newer version.

    .. versionadded:: 0.1
    """


# --- policy hooks: called by the device ---------------------------------------------


@hookspec(firstresult=True)
def policy_features() -> int:
    """Return feature bits (a mask of 0 to 23) to offer besides the device's own.

    Called whenever features are read.

    .. versionadded:: 0.1
    """


@hookspec
def policy_observe(event: Event) -> None:
    """See one event. Called for each, in order; ``policy_gate`` is asked after it.

    On :class:`~balloon_plugin.events.DeviceReset` the policy forgets all that it learnt
    of the driver. What the host said of the guest and the user's target stay true.

    :param event: one of :data:`~balloon_plugin.events.PolicyEvent`; unknown ones are
        ignored.

    .. versionadded:: 0.1
    """


@hookspec(firstresult=True)
def policy_gate(requested: int) -> Gate:
    """Return what the device may do now. Called after every event.

    :param requested: the target that the user asked for, in pages; 0 if none.

    .. versionadded:: 0.1
    """


@hookspec(firstresult=True)
def policy_verdict() -> Verdict:
    """Return what has been concluded so far. Called after events and by queries.

    .. versionadded:: 0.1
    """


@hookspec(firstresult=True)
def policy_save() -> dict[str, Any]:
    """Return the policy's own state as a value that JSON can carry.

    .. versionadded:: 0.1
    """


@hookspec
def policy_load(state: dict[str, Any]) -> None:
    """Take over what ``policy_save`` of the same policy returned.

    :param state: a value that went through JSON, and is the policy's to keep.
    :raises ValueError: if the state makes no sense; the device then goes on as if
        no verdict had been saved. So it does with a policy that has no such hook.

    .. versionadded:: 0.1
    """


# --- observer hook: called by the device --------------------------------------------


@hookspec
def balloon_event(event: Event) -> None:
    """See one event, for metrics, traces and tests. Nothing can be changed from here.

    An observer that raises is called no more; the guest does not notice.

    :param event: any event, those about the device itself included.

    .. versionadded:: 0.1
    """
