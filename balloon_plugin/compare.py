"""The same guests under each policy: what was concluded, and what it cost.

One comparison is one row: a simulated guest boots under a policy, is left alone until
nothing moves any more, and is then asked for a balloon and for its memory back. Whether
the verdict is right is judged by the truth that comes with the guest's profile, and
harm is counted in the guest's own memory, never taken from what a policy says.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from balloon_plugin.calls import Device
from balloon_plugin.events import (
    Event,
    Judgement,
    Verdict,
    VerdictChanged,
)
from balloon_plugin.guests.guest import Guest
from balloon_plugin.guests.traits import Circumstance, GuestProfile
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.hosts.simulated import Setup, SimulatedHost
from balloon_plugin.layouts import PAGE_SIZE
from balloon_plugin.manager import make_device

__all__ = ["Row", "compare", "run", "settle"]

RAM_SIZE: Final = 64 << 20
"""Bytes of RAM of a simulated guest: four times what a 64K guest gives by mistake."""

TARGET: Final = 2048
"""Pages of the balloon that the user asks for (8 MiB), of every page size a
multiple."""

PATIENCE: Final = 15
"""Seconds of the simulated clock to wait; more than any policy waits for a driver."""

_USUAL = Circumstance()


@dataclass(frozen=True, slots=True)
class Row:
    """What one guest did under one policy. Pages are 4 KiB pages.

    :ivar guest: the guest's name.
    :ivar policy: the policy with its options.
    :ivar verdict: ``good``, ``buggy`` or ``undecided``, at the end.
    :ivar state: the policy's own name for where it stood.
    :ivar right: whether the verdict is what the guest's profile says is true.
    :ivar harm_pages: pages in use that were lost, whoever lost them.
    :ivar taken_pages: the most that were missing before the user asked for any.
    :ivar parked_pages: still missing after the user asked for all of them back.
    :ivar steps: what the driver did until the verdict, ``None`` if there was none.
    :ivar usable: whether the balloon came to the user's target, and back to nothing.
    :ivar oops: what the driver died of, ``None`` if it lives; the page that it died of
        counts as harm.
    :ivar defects: names of the defects found.
    :ivar evidence: what showed what, a sentence each.
    """

    guest: str
    policy: str
    verdict: str
    state: str
    right: bool
    harm_pages: int
    taken_pages: int
    parked_pages: int
    steps: int | None
    usable: bool
    oops: str | None = None
    defects: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the row as a value that JSON can carry."""
        return asdict(self)


@dataclass(slots=True)
class _Clerk:
    """Writes down after how many steps the judgement became what it is."""

    guest: Guest | None = None
    judgement: Judgement = Judgement.UNDECIDED
    steps: int | None = None

    @hookimpl
    def balloon_event(self, event: Event) -> None:
        """Note a change of judgement."""
        if isinstance(event, VerdictChanged) and self._changes(event.verdict):
            self.judgement = event.verdict.judgement
            self.steps = self.guest.steps if self.guest else 0

    def _changes(self, verdict: Verdict) -> bool:
        return verdict.judgement is not self.judgement


def run(
    profile: GuestProfile,
    policy: str,
    circumstance: Circumstance = _USUAL,
    observers: Iterable[object] = (),
) -> Row:
    """Run one guest under one policy.

    :param policy: a policy's name with its options.
    :param observers: see every event, for traces.
    :raises PluginError: if the policy cannot be made.
    """
    clerk = _Clerk()
    device = make_device(policy, observers=[clerk, *observers])
    with SimulatedHost(device, _setup(profile)) as host:
        guest = clerk.guest = Guest(profile, host, circumstance)
        settle(guest, host)
        taken = guest.taken_pages
        reached = _ask(device, guest, host, TARGET)
        back = _ask(device, guest, host, 0)
        verdict = device.query().verdict
        page = profile.page_size // PAGE_SIZE
        return Row(
            guest=profile.name,
            policy=policy,
            verdict=verdict.judgement.value,
            state=verdict.state,
            right=verdict.judgement is profile.truth,
            harm_pages=guest.lost_pages + (page if guest.oops else 0),
            taken_pages=taken,
            parked_pages=guest.parked_pages,
            steps=clerk.steps if clerk.judgement is not Judgement.UNDECIDED else None,
            usable=reached and back and guest.oops is None,
            oops=guest.oops,
            defects=tuple(defect.name for defect in verdict.defects),
            evidence=tuple(f"{item.event}: {item.shows}" for item in verdict.evidence),
        )


def compare(guests: Sequence[GuestProfile], policies: Sequence[str]) -> Iterator[Row]:
    """Yield a row for each guest under each policy, guest by guest."""
    return (run(guest, policy) for guest, policy in itertools.product(guests, policies))


def settle(guest: Guest, host: SimulatedHost) -> None:
    """Let the guest do what it has to do, and time pass until nothing moves."""
    for _ in range(PATIENCE):
        guest.run()
        end = host.now() + 1.0
        while guest.wake_at is not None and guest.wake_at < end:
            host.advance(max(0.0, guest.wake_at - host.now()))
            guest.run()
        host.advance(end - host.now())
    guest.run()


def _ask(device: Device, guest: Guest, host: SimulatedHost, target: int) -> bool:
    """Ask for a balloon; return whether the guest came to it, in whole pages."""
    device.set_target(target)
    settle(guest, host)
    page = guest.profile.page_size // PAGE_SIZE
    return target <= guest.parked_pages < target + page


def _setup(profile: GuestProfile) -> Setup:
    """Return the machine for a guest, on which the host knows its byte order.

    QEMU knows it from the machine that it emulates; no host knows the page size.
    """
    return Setup(
        ram_size=RAM_SIZE,
        ram_start=profile.ram_start,
        byte_order=profile.byte_order,
        legacy=not profile.modern,
    )
