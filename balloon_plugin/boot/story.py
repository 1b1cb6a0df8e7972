"""The story of one guest: booted, judged, its memory taken and given back, shut down.

The same for every machine, and written to be read from top to bottom: each chapter does
one thing to the guest, waits for what must follow, and tells what was measured.

Guest memory that was never written to has no host memory behind it, and a balloon gets
nothing out of it. So the guest uses its memory before the driver comes.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from balloon_plugin.boot.guest import GuestReport, Machine
from balloon_plugin.boot.plan import (
    MEBIBYTE,
    Ending,
    Kind,
    Plan,
    Report,
    Result,
    Step,
    amount,
    pages,
)
from balloon_plugin.boot.stage import Stage
from balloon_plugin.boot.talk import GoneWrongError, Talk
from balloon_plugin.boot.uml import find_uml
from balloon_plugin.layouts import PAGE_SIZE

__all__ = ["boot", "boot_uml"]

KEPT: Final = 8
"""MiB that the guest holds all along, to show that nothing in use was lost."""

STAYS: Final = 0.1
"""Seconds that a balloon must stay at its target: a runaway one has every size once."""

SPARE: Final = 48
"""MiB that the guest writes to besides the target's.

The driver takes free pages in an order of its own, and would come upon pages that were
never written to.
"""

AGAIN: Final = 64
"""MiB that the guest writes to at the end.

Harm can be latent: a page that was freed though it was in use does none until somebody
gets it.
"""


def boot_uml(plan: Plan, report: Report) -> Result:
    """Boot User-Mode Linux under a policy, and tell what happens.

    :raises HostError: if something is missing on this machine, with what to install.
    :raises PluginError: if there is no such policy.
    """
    return boot(find_uml(), plan, report)


def boot(machine: Machine, plan: Plan, report: Report) -> Result:
    """Boot a guest under a policy, and tell what happens.

    Nothing is left behind, whichever way it ends; Ctrl-C included.

    :param report: called with each step.
    :returns: how it ended, with the measurements.
    :raises HostError: if the guest cannot be started.
    :raises PluginError: if there is no such policy.
    """
    start = time.monotonic()
    with Stage(machine, plan) as stage:
        report(Step(0.0, Kind.HOST, _opening(machine, plan)))
        return _Story(machine, plan, Talk(stage, plan, report, start)).tell()


def _opening(machine: Machine, plan: Plan) -> str:
    size = amount(plan.memory)
    return f"boots {machine.title} with {size} under the policy {plan.policy}"


class _Story:
    """The chapters."""

    def __init__(self, machine: Machine, plan: Plan, talk: Talk) -> None:
        self._machine = machine
        self._plan = plan
        self._talk = talk
        self._result = Result(Ending.FAILED)
        self._total = 0  # bytes of memory that the guest had before the driver

    def tell(self) -> Result:
        """Tell all chapters; one that goes wrong is the last."""
        try:
            self._tell_chapters()
        except GoneWrongError as error:
            self._talk.tell(Kind.PROBLEM, str(error))
            self._note(ending=Ending.FAILED, reason=str(error))
        states = self._result.states or tuple(self._talk.view.states)
        self._note(states=states, seconds=self._talk.elapsed)
        return self._result

    def _tell_chapters(self) -> None:
        self._boot()
        self._use_memory()
        self._load_driver()
        self._ask_for_target()
        reached = self._reach_target()
        self._talk.hear_report("insmod")
        if reached:
            self._measure()
            self._empty_balloon()
            ending = Ending.REACHED
        else:
            self._see_nothing_taken()
            ending = Ending.REFUSED
        self._use_memory_again()
        self._shut_down()
        self._note(ending=ending)

    # --- before the balloon ---

    def _boot(self) -> None:
        talk = self._talk
        talk.wait(lambda: talk.view.booted, "not booted yet")
        report = talk.ask("device")
        talk.tell(Kind.GUEST, f"is up; {amount(report.free)} of its memory are free")

    def _use_memory(self) -> None:
        used = self._plan.target * PAGE_SIZE // MEBIBYTE + SPARE
        for command in self._machine.use_memory(used):
            self._talk.ask(command)
        report = self._talk.ask(f"alloc {KEPT}")
        self._total = report.total
        self._take_numbers(report)
        self._talk.tell(
            Kind.GUEST,
            f"wrote to {used} MiB and freed them; keeps {KEPT} MiB of known content",
        )

    def _load_driver(self) -> None:
        talk, view = self._talk, self._talk.view
        talk.tell(Kind.GUEST, f"loads its driver {self._machine.driver}")
        # One that is built in was there before, and had to let go of its device.
        view.driver_ready = False
        talk.send(f"insmod {self._machine.driver}")
        talk.wait(
            lambda: view.driver_ready or view.failure is not None,
            "the driver is not ready",
        )
        if view.failure is not None:
            raise GoneWrongError(f"the guest cannot load its driver: {view.failure}")

    def _ask_for_target(self) -> None:
        target = self._plan.target
        self._talk.device(lambda device: device.set_target(target))

    # --- with the balloon ---

    def _reach_target(self) -> bool:
        """Wait for the target; return whether it was reached, not refused."""
        talk, view, target = self._talk, self._talk.view, self._plan.target
        talk.wait(
            lambda: (
                view.refusal is not None or view.holds(target) or view.exceeds(target)
            ),
            self._progress,
        )
        if view.refusal is not None:
            return False
        end = talk.elapsed + STAYS
        talk.wait(lambda: not view.holds(target) or talk.elapsed >= end, "")
        if not view.holds(target):
            raise GoneWrongError(
                f"the driver was asked for {pages(target)} and did not stop there: "
                f"{pages(view.actual)} so far"
            )
        talk.tell(Kind.BALLOON, f"has reached its target of {pages(view.actual)}")
        return True

    def _progress(self) -> str:
        view = self._talk.view
        text = f"{pages(view.actual)} of {pages(self._plan.target)} in the balloon"
        if view.newest is not None:
            text += f", {amount(view.newest.free)} free in the guest"
        return text

    def _measure(self) -> None:
        self._take_numbers(self._talk.ask("device"))
        reclaimed = self._count_reclaimed()
        text = f"{pages(reclaimed)} came back by the device's count"
        if len(self._result.held) > 1:
            before, now = self._result.held
            # The guest may meanwhile have used more than a tiny balloon holds.
            came_back = amount(max(before - now, 0))
            text = (
                f"holds {amount(now)} for the guest instead of {amount(before)}: "
                f"{came_back} came back ({pages(reclaimed)} by the "
                "device's count)"
            )
        self._talk.tell(Kind.HOST, text)

    def _empty_balloon(self) -> None:
        talk, view = self._talk, self._talk.view
        talk.device(lambda device: device.set_target(0))
        talk.wait(
            lambda: view.holds(0),
            lambda: f"{pages(view.actual)} still in the balloon",
        )
        talk.tell(Kind.BALLOON, "is empty again")
        self._take_numbers(talk.ask("device"))
        before, filled, after = map(amount, self._result.free)
        talk.tell(
            Kind.GUEST,
            f"had {before} free before, {filled} with the balloon, {after} after it",
        )

    def _see_nothing_taken(self) -> None:
        self._note(reason=self._talk.view.refusal)
        reclaimed = self._count_reclaimed()
        if reclaimed:
            raise GoneWrongError(f"{pages(reclaimed)} were taken in spite of that")
        self._talk.tell(Kind.HOST, "has taken nothing from the guest")

    # --- after the balloon ---

    def _use_memory_again(self) -> None:
        """Let the guest use what it has, and see that nothing is lost."""
        report = self._talk.ask("device")
        lost = KEPT * MEBIBYTE // PAGE_SIZE - report.kept
        again = max(1, min(AGAIN, report.free // MEBIBYTE // 2))
        for command in self._machine.use_memory(again):
            lost += self._talk.ask(command).lost
        self._note(intact=not lost, parked=max(0, self._total - report.total))
        if lost:
            raise GoneWrongError(f"the guest lost {lost} pages that were in use")
        self._talk.tell(
            Kind.GUEST, f"finds its {KEPT} MiB intact, and writes to {again} MiB more"
        )
        if self._result.parked:
            parked = amount(self._result.parked)
            self._talk.tell(
                Kind.GUEST, f"is left without {parked}: its driver has them"
            )

    def _shut_down(self) -> None:
        talk = self._talk
        # With the driver its session ends, and the policy waits for the next: no news.
        self._note(states=tuple(talk.view.states))
        talk.quiet = True
        talk.send("poweroff")
        talk.wait(lambda: talk.view.ended == 0, "not shut down yet")
        self._note(clean=True)
        talk.tell(Kind.GUEST, "shut down in order")

    # --- notes ---

    def _take_numbers(self, report: GuestReport) -> None:
        """Note what the guest has free and what the host holds, at this moment."""
        held = self._talk.memory_held()
        self._note(free=(*self._result.free, report.free))
        if held is not None:
            self._note(held=(*self._result.held, held))

    def _count_reclaimed(self) -> int:
        reclaimed = self._talk.device(lambda device: device.query()).reclaimed
        self._note(reclaimed=reclaimed)
        return reclaimed

    def _note(self, **values: object) -> None:
        self._result = replace(self._result, **values)  # type: ignore[arg-type]
