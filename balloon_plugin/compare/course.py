"""The course of one run: a guest boots, is asked for a balloon and for its memory back.

In between happens what the circumstance says. Time passes by itself; a phase ends when
nothing has moved for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from balloon_plugin.calls import Device
from balloon_plugin.compare.circumstance import Act, Circumstance, Site, Turn
from balloon_plugin.compare.clerk import Clerk, Offer, Phase, Teller
from balloon_plugin.events import Verdict
from balloon_plugin.guests.guest import Guest
from balloon_plugin.guests.traits import GuestProfile
from balloon_plugin.hosts.simulated import Setup, SimulatedHost
from balloon_plugin.layouts import PAGE_SIZE

__all__ = ["Course", "Tell"]

Tell: TypeAlias = Callable[[float, int, str], None]
"""Is told the time in seconds, the guest's steps so far, and what happens."""

Perform: TypeAlias = "Callable[[Course, Turn], None]"
"""Lets happen what a turn says."""

QUIET: Final = 6
"""Seconds in which nothing moves after which nothing will: more than a policy waits for
a driver, unless it is told to wait longer; then it wakes it meanwhile."""

PATIENCE: Final = 60
"""Seconds after which a run goes on even if something still moves."""

RESTLESS: Final = 1000
"""Steps without a pause after which a driver will never come to rest; inflating all of
64 MiB takes 600."""

_BOOTS: Final = (Act.REBOOT, Act.KEXEC)


class Course:
    """One guest, or several one after the other, on one machine under one policy.

    :param profile: the guest that boots first.
    :param make: makes the device; called again where another one takes over.
    :param circumstance: what is special.
    :param perform: is called for each turn of the circumstance, when its moment comes.
    :param observers: see every event of the device that is in charge.
    :param tell: is told all that happens: the time, the guest's steps, and a sentence.

    :ivar device: the device in charge.
    :ivar host: the machine.
    :ivar guest: the guest that runs now.
    :ivar clerk: what was noted.
    :ivar harm: pages that guests lost which are gone by now.
    :ivar again: whether the user has a reason to ask again.
    """

    def __init__(
        self,
        profile: GuestProfile,
        make: Callable[[], Device],
        circumstance: Circumstance,
        perform: Perform,
        observers: Sequence[object] = (),
        tell: Tell | None = None,
    ) -> None:
        self.circumstance = circumstance
        self.harm = 0
        self.again = False
        self.clerk = Clerk(self._steps)
        self._make = make
        self._perform = perform
        self._tell = tell
        teller = (Teller(self.tell),) if tell else ()
        self._observers = (self.clerk, *teller, *observers)
        self._pending = list(circumstance.turns)
        self._wanted = 0
        self.device = self.new_device()
        self._watch(self.device)
        self.host = SimulatedHost(self.device, _setup(profile, circumstance.site))
        self.guest = Guest(profile, self.host, circumstance.conditions)

    # --- phases ---

    def test(self) -> None:
        """Leave the guest alone until nothing moves."""
        self._begin(Phase.TEST)
        self._come_to_rest()

    def ask(self, phase: Phase, target: int) -> bool:
        """Ask for a balloon; return whether the guest came to it.

        If the user changes his mind on the way, he is first given what he wants then.
        """
        self._begin(phase)
        self.set_target(target)
        reached = self._come_to_rest()
        if self._wanted != target:
            self.set_target(target)
            reached &= self._come_to_rest()
        return reached and self.guest.oops is None

    def verdict(self) -> Verdict:
        """Return the verdict as it stands."""
        return self.device.query().verdict

    def close(self) -> None:
        """Let go of the machine, and see no more of it."""
        self._unwatch(self.device)
        self.host.close()

    def _begin(self, phase: Phase) -> None:
        self._phase = phase
        self.clerk.wait(phase)

    def _come_to_rest(self) -> bool:
        """Settle, and make up for what has not happened; return if on target."""
        at_rest = self._settle()
        while self._make_up():
            at_rest = self._settle()
        # A user who sees that the guest had to give its balloon back, or that his
        # target was refused to a guest which is gone, asks again.
        if self.again:
            self.again = False
            self.set_target(self._wanted)
            at_rest = self._settle()
        page = self.guest.profile.page_size // PAGE_SIZE
        in_balloon = self.guest.parked_pages
        return at_rest and self._wanted <= in_balloon < self._wanted + page

    def _make_up(self) -> bool:
        """Let happen what is due at the end of the phase; return whether any was."""
        due = [turn for turn in self._armed() if turn.moment in self._phase.stops]
        for turn in due:
            self._happen(turn)
        return bool(due)

    def tell(self, what: str) -> None:
        """Say what happens, to whoever wants to know."""
        if self._tell:
            host = getattr(self, "host", None)
            self._tell(host.now() if host else 0.0, self._steps(), what)

    # --- what acts use ---

    def new_device(self) -> Device:
        """Make a device that offers what the circumstance says."""
        device = self._make()
        if self.circumstance.site.features:
            device.plugins.register(Offer(self.circumstance.site.features))
        return device

    def set_target(self, target: int) -> None:
        """Ask for a balloon."""
        self.device.set_target(target)
        self._wanted = target

    def ask_for_statistics(self) -> None:
        """Ask for statistics now, and not again by itself."""
        self.device.set_stats_interval(1)
        self.device.set_stats_interval(0)

    def replace_device(self, device: Device) -> None:
        """Go on with another device."""
        self._unwatch(self.device)
        self._watch(device)
        self.host.migrate(device)
        self.device = device

    def boot(self, profile: GuestProfile) -> None:
        """Boot another guest in place of the one that runs."""
        self.harm += self.guest.harm
        self.guest = Guest(profile, self.host, self.circumstance.conditions)
        self.again = True

    def run_alone(self, done: Callable[[], bool]) -> None:
        """Run the guest until something is done or it is plain that it will not be."""
        for _ in range(QUIET):
            self.guest.run(RESTLESS)
            if done():
                return
            self._pass_a_second()

    # --- time ---

    def _settle(self) -> bool:
        """Let time pass until nothing moves; return whether the guest is at rest."""
        still = 0
        for _ in range(PATIENCE):
            before = self._signs()
            if self._run() == RESTLESS:
                return False
            self._pass_a_second()
            still = still + 1 if self._signs() == before and not self._asleep() else 0
            if still == QUIET:
                break
        return self._run() < RESTLESS

    def _signs(self) -> tuple[int, int]:
        return self.guest.parked_pages, self.host.config_interrupts

    def _asleep(self) -> bool:
        """Return whether the driver sleeps for longer than a second more."""
        wake_at = self.guest.wake_at
        return wake_at is not None and wake_at > self.host.now() + 1.0

    def _pass_a_second(self) -> None:
        """Let a second pass, in which the driver may wake from its sleep."""
        end = self.host.now() + 1.0
        if self.circumstance.site.polls_stats:
            self.ask_for_statistics()
        while self.guest.wake_at is not None and self.guest.wake_at < end:
            self._let_pass(max(0.0, self.guest.wake_at - self.host.now()))
            if not self._run():
                break
        self._let_pass(end - self.host.now())

    def _let_pass(self, seconds: float) -> None:
        self.clerk.miss(self.guest.parked_pages, seconds)
        self.host.advance(seconds)

    def _run(self) -> int:
        """Run the guest until it waits; return how many steps it did."""
        if not self._pending:
            return self.guest.run(RESTLESS)
        for count in range(RESTLESS):
            if not self.guest.step():
                return count
            self._look()
        return RESTLESS

    def _look(self) -> None:
        """Let happen whatever the guest's last step was the moment for."""
        come = self.clerk.come
        for turn in self._armed():
            moment = turn.moment
            if moment in come or moment == self.guest.steps:
                self._happen(turn)

    def _armed(self) -> list[Turn]:
        """Return what may happen now: nothing behind the boot of another guest."""
        boots = (i for i, turn in enumerate(self._pending) if turn.act in _BOOTS)
        return self._pending[: next(boots, len(self._pending)) + 1]

    def _happen(self, turn: Turn) -> None:
        self._pending.remove(turn)
        self.tell(f"{turn.act.value}{f': {turn.guest}' if turn.guest else ''}")
        self._perform(self, turn)

    # --- observers ---

    def _watch(self, device: Device) -> None:
        for observer in self._observers:
            device.plugins.register(observer)

    def _unwatch(self, device: Device) -> None:
        for observer in self._observers:
            device.plugins.unregister(observer)

    def _steps(self) -> int:
        # Before there is a guest the device has learnt of its RAM already.
        guest = getattr(self, "guest", None)
        return guest.steps if guest else 0


def _setup(profile: GuestProfile, site: Site) -> Setup:
    return Setup(
        ram_size=site.ram_size,
        ram_start=profile.ram_start if site.ram_start is None else site.ram_start,
        byte_order=profile.byte_order,
        tell_byte_order=site.tells_byte_order,
        page_size=profile.page_size if site.tells_page_size else None,
        host_page_size=site.host_page_size,
        legacy=site.legacy or not profile.modern,
        holds_early_kicks=site.holds_early_kicks,
    )
