"""What an operator can do to a real simulated guest, and who answers for a loss.

Machine, guest and device are those of ``compare``. What is done to them, and in which
order, is a test's to say.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace

from balloon_plugin import change_policy, make_device
from balloon_plugin.compare.circumstance import Act, Turn
from balloon_plugin.compare.limits import LIMITS
from balloon_plugin.errors import HostError
from balloon_plugin.events import DeviceReset, Judgement, PolicyChanged, TargetRead
from balloon_plugin.guests import GUESTS, Guest
from balloon_plugin.guests.traits import Engine
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.hosts.simulated import Setup, SimulatedHost
from balloon_plugin.layouts import PAGE_SIZE
from balloon_plugin.manager import policy_factory

QUIET = 8
"""Seconds in which nothing moves after which nothing will: more than patience."""

LONG = 300
"""Seconds after which a guest has had time enough."""

RESTLESS = 10_000
"""Steps without a pause after which a driver will never come to rest."""

TESTED = 256
"""Pages of the largest of the tests here, in which a driver takes a batch."""


_factory = functools.cache(policy_factory)


def _policy(name):
    """Return a policy; to look one up takes as long as half a walk."""
    return _factory(name)()


def is_evidence(policy):
    return policy.partition(":")[0] == "evidence"


class Machine(SimulatedHost):
    """A machine whose kicks do not arrive while its front end is away."""

    away = False

    def _serve(self):
        if not self.away:
            super()._serve()


class _Ear:
    """Hears what a device tells. Older pluggy looks at all that a plugin has."""

    def __init__(self, hear):
        self._hear = hear

    @hookimpl
    def balloon_event(self, event):
        self._hear(event)


class Walk:
    """One guest, and all that an operator can do to it.

    :param guest: its name.
    :param policy: the one that judges first.
    :param circumstance: its conditions and site.
    :param options: what the device offers.

    :ivar ruled: the policies that had power over this driver since its last reset.
    :ivar held: the target that the driver was shown when it was held, and the pages
        that had been given back by then; ``None`` if it is not held.
    """

    def __init__(self, guest, policy, circumstance, options):
        self.profile, self.policy = GUESTS[guest], policy
        self.circumstance, self.options = circumstance, options
        self._ear = _Ear(self._hear)
        self.guest = self.most = self.held = None
        self.device = self._new_device(policy)
        self.host = Machine(self.device, _setup(self.profile, circumstance.site))
        self._begin_session()
        self._boot()

    def _new_device(self, policy):
        device = make_device(_policy(policy), name=policy, options=self.options)
        device.plugins.register(self._ear)
        return device

    def _boot(self):
        self._lost, self._busy, self._asleep = 0, False, False
        self.guest = Guest(self.profile, self.host, self.circumstance.conditions)
        self.find_memory(self.most)

    def _begin_session(self):
        self.ruled, self.held = {self.policy}, None
        self._read, self._acts, self._came_late = 0, set(), False

    def _hear(self, event):
        match event:
            case TargetRead(num_pages=num_pages):
                self._read = num_pages
            case PolicyChanged(policy=policy, held=held):
                self._came_late |= not held and self.device.query().ballooned > 0
                self._come_to_power(policy, self._shown() if held else None)
            case DeviceReset() if self.guest is not None:
                self._look_for_harm()
                self._begin_session()

    def _come_to_power(self, policy, held):
        self.policy, self.held = policy, held
        if held is None:
            self.ruled.add(policy)

    def _shown(self):
        return self.device.query().advertised, self.host.discarded_pages

    # --- what must hold at every moment ---

    def look(self):
        """Nothing in use is lost; who is held is asked for nothing, and gives nothing.

        A device that is held can do no harm, whatever its policy is.
        """
        self._look_for_harm()
        if self.held is not None:
            assert self._shown() == self.held

    def _look_for_harm(self):
        before, self._lost = self._lost, self.guest.harm
        lost = self._lost - before
        assert not lost or self.who_answers(), f"{lost} pages in use lost"

    def who_answers(self):
        """Return who answers for a loss, if it is not the device: words, or nothing.

        Whoever has ``none`` (or the probe, or the feature bit) rule over a driver
        answers for what it believes, until the next driver: that may lose pages later,
        when it gives others back than it took. What nobody avoids is in ``limits``.
        """
        if not all(map(is_evidence, self.ruled)):
            return "a policy that believes too much"
        return self._limit("harmed")

    def _limit(self, head):
        """Return the name of what nobody does better here, or nothing."""
        turns = tuple(Turn(act, 0) for act in self._acts)
        here = replace(self.circumstance, turns=turns)
        return next(
            (
                each.name
                for each in LIMITS
                if head in each.heads and each.holds(self.profile, here)
            ),
            "",
        )

    @property
    def is_alive(self):
        """Whether there is a driver that did not die of what it did."""
        absent = self.profile.driver.engine is Engine.ABSENT
        return not absent and self.guest.oops is None

    # --- the operator and the host ---

    def ask(self, pages):
        self.device.set_target(pages)

    def change_policy(self, policy):
        # It may judge by a feature bit that this driver was never offered.
        with contextlib.suppress(HostError):
            change_policy(self.device, _policy(policy), name=policy)

    def restore(self, policy):
        """Go on with another device, as a daemon does that is started again.

        That reads it as the one before did, and knows of the same pages.
        """
        if not self.host.away:
            before = self._known()
            self._go_on_with(policy)
            assert self._known() == before

    def _known(self):
        status, state = self.device.query(), self.device.save()
        return status.actual, status.features, state["ready"], state["ledger"]

    def find_front_end(self, policy):
        """Go on where the connection was lost, perhaps with another daemon."""
        if self.host.away:
            self.host.away = False
            self._go_on_with(policy)

    def _go_on_with(self, policy):
        old = self.device
        status, state = old.query(), old.save()
        in_use = status.ballooned or state["actual"] or self._read
        known = policy == self.policy and self.held is None
        held = None if known or not in_use else self.held or self._shown()
        old.plugins.unregister(self._ear)
        self.device = self._new_device(policy)
        self._come_to_power(policy, held)
        self.host.migrate(self.device)

    def lose_front_end(self):
        self.host.away = True

    def inhibit(self, reason):
        self.device.set_inhibited(reason)

    def ask_for_statistics(self, seconds):
        self.device.set_stats_interval(seconds)

    def ask_for_hints(self):
        # There may be no driver that hints, or not yet.
        with contextlib.suppress(HostError):
            self.device.start_hinting()

    def learn(self):
        """Let the host know its guest as well as one can."""
        self.host.setup = replace(
            self.host.setup, tell_byte_order=True, page_size=self.profile.page_size
        )
        self.device.guest_changed()

    # --- the guest ---

    def go_on(self, steps):
        self.guest.run(steps)

    def pass_time(self, seconds):
        """Let time pass; return whether the guest is at rest then."""
        host, guest = self.host, self.guest
        end = host.now() + seconds
        while guest.run(RESTLESS) < RESTLESS and host.now() < end:
            pause = guest.wake_at or end
            host.advance(min(max(pause - host.now(), 0.01), end - host.now(), 1.0))
        return host.now() >= end

    def find_memory(self, frames):
        """Let the balloon have so many frames at most; ``None`` for all."""
        self.most = frames
        self.guest.driver.balloon.most = frames

    def use_memory(self, frames):
        """Let a program use frames, and free them: the last ones are free then."""
        self.guest.kernel.free(self.guest.kernel.allocate(frames))

    def run_out_of_memory(self, units):
        self.guest.driver.deflate_on_oom(units)

    def compact(self, pages):
        self.guest.driver.move_pages(pages)

    def reboot(self):
        self.host.reset()
        self._boot()

    def unload(self):
        if self._can_leave and self.profile.driver.removable:
            self._busy = True
            self._acts.add(Act.MODULE_RELOAD)
            self.guest.driver.remove()

    def load(self):
        if self.guest.driver.removed:
            self.guest.insert_module()
            self.find_memory(self.most)
            self._busy = False

    def hibernate(self):
        """Let a driver that knows how to leave its device for the time being.

        Another is silent for as long, and silence is an answer.
        """
        leaves = self.profile.driver.has_freeze
        if leaves and self._can_leave and not self.host.away:
            self._busy = self._asleep = True
            self._acts.add(Act.HIBERNATION)
            self.guest.driver.freeze()
            self.pass_time(3)

    def wake(self):
        if self._asleep:
            self._busy = self._asleep = False
            self.guest.driver.thaw()
            self.go_on(1)

    @property
    def _can_leave(self):
        return self.is_alive and not self._busy

    # --- the end ---

    def end(self):
        """Every buffer is back, and what can work works: at least with the next driver.

        It is judged rightly, if ``evidence`` has seen all of it. One that knows a
        driver by its features may come over a balloon in use, but it does not know how
        much is in there, which matters with macOS.
        """
        rests = self.come_to_rest()
        self.look()
        seen = self.held is None and not self._came_late
        if seen and all(map(is_evidence, self.ruled)):
            self._works_and_is_judged()
        if rests and not self.guest.harm:
            self._can_be_unloaded()
        self.change_policy("evidence")
        self.reboot()
        self._settle()
        self._works_and_is_judged()

    def close(self):
        self.device.plugins.unregister(self._ear)
        self.host.close()

    def _works_and_is_judged(self):
        if self.is_usable and self.is_alive:
            assert self.come_to(1024)
            assert self.come_to(0)
            assert self.device.query().verdict.judgement is self.profile.truth

    def _can_be_unloaded(self):
        self.unload()
        if self._busy:
            self._settle()
            assert self.guest.driver.removed

    def come_to_rest(self):
        """Give the guest all that it may wait for; return whether it comes to rest."""
        self.find_front_end(self.policy)
        self.inhibit(None)
        self.ask_for_statistics(0)
        self.find_memory(None)
        self.wake()
        rests = self._settle()
        self.load()
        return rests and self._settle()

    def _settle(self):
        end = self.host.now() + LONG
        while self.host.now() < end:
            before = self._signs()
            if not self.pass_time(QUIET):
                return False
            sleeps = (self.guest.wake_at or 0) > self.host.now() + 1
            if before == self._signs() and not sleeps:
                return True
        return False

    def _signs(self):
        return self.guest.parked_pages, self.host.config_interrupts

    def come_to(self, pages):
        """Ask for a balloon; return whether the guest came to rest with it.

        The device knows of each page, but of a driver that has to be translated: those
        that came in a test before it could be.
        """
        self.ask(pages)
        rests = self._settle()
        self.look()
        status = self.device.query()
        page = self.profile.page_size // PAGE_SIZE
        there = self.guest.parked_pages - self.guest.leaked_pages
        unknown = 0 if self.profile.truth is Judgement.GOOD else TESTED
        silent = not self.profile.driver.writes_actual
        return (
            rests
            and pages <= there < pages + page
            and there - unknown <= status.ballooned <= there
            and (status.actual == there or silent)
        )

    @property
    def is_usable(self):
        """Whether any device could make this balloon go up and down."""
        return not self.profile.unusable and not self._limit("unusable")


def _setup(profile, site):
    return Setup(
        ram_start=profile.ram_start if site.ram_start is None else site.ram_start,
        byte_order=profile.byte_order,
        tell_byte_order=site.tells_byte_order,
        page_size=profile.page_size if site.tells_page_size else None,
        host_page_size=site.host_page_size,
        legacy=not profile.modern,
        holds_early_kicks=site.holds_early_kicks,
    )
