"""A whole guest: its kernel and its driver, on a machine that a host offers."""

from __future__ import annotations

from typing import Final

from balloon_plugin.guests.driver import Driver
from balloon_plugin.guests.kernel import Kernel, Layout
from balloon_plugin.guests.lies import LIED_ABOUT
from balloon_plugin.guests.ram import Ram
from balloon_plugin.guests.traits import Conditions, GuestProfile, Lie
from balloon_plugin.guests.transport import Machine
from balloon_plugin.guests.wire import reach
from balloon_plugin.layouts import PAGE_SIZE

__all__ = ["Guest"]

LEAST_WATCHED: Final = 16
"""Lowest pages watched even where wrong numbers cannot come near them."""

ENDLESS: Final = 100_000
"""Steps after which :meth:`Guest.run` stops; inflating 1 GiB takes 10,000."""


class Guest:
    """A guest that has booted and is about to probe its balloon device.

    Boot a second one on the same machine, and the first is gone, as after kexec.

    :param profile: which guest.
    :param machine: its RAM and the bus to the device.
    :param conditions: what is special about this boot.
    :raises HostError: if the machine has too little RAM for it.

    :ivar kernel: its memory.
    :ivar driver: its balloon driver.
    :ivar steps: how many things it did so far that a host could see.
    """

    def __init__(
        self,
        profile: GuestProfile,
        machine: Machine,
        conditions: Conditions = Conditions(),  # noqa: B008 - a frozen value
    ) -> None:
        self.profile = profile
        self.steps = 0
        self._machine = machine
        self._conditions = conditions
        ram = Ram(machine.ram_start, machine.ram)
        end = ram.start + ram.pages * PAGE_SIZE
        pages = reach(end, profile.driver.pfn_form, profile.page_size)
        if profile.driver.lie is not Lie.NONE:
            pages = LIED_ABOUT
        self.kernel = Kernel(
            ram,
            Layout(
                page_size=profile.page_size,
                watched=max(pages, LEAST_WATCHED),
                allocation=conditions.allocation,
                seed=conditions.seed,
                queue_align=conditions.queue_align,
            ),
        )
        self.driver = Driver(profile, self.kernel, machine, conditions)

    def step(self) -> bool:
        """Do one thing that a host could see; return whether there was any to do."""
        acted = self.driver.step()
        self.steps += acted
        return acted

    def run(self, limit: int = ENDLESS) -> int:
        """Run until nothing is left to do or ``limit`` is reached; return the steps.

        A driver that sleeps is done for now; :attr:`wake_at` tells until when.
        """
        for count in range(limit):
            if not self.step():
                return count
        return limit

    def insert_module(self) -> None:
        """Load the driver anew, after :meth:`Driver.remove` has been carried out."""
        self.driver = Driver(self.profile, self.kernel, self._machine, self._conditions)

    @property
    def wake_at(self) -> float | None:
        """When the driver wakes from its sleep; ``None`` if it does not sleep."""
        return self.driver.balloon.wake_at

    @property
    def oops(self) -> str | None:
        """What the driver died of, or ``None``."""
        return self.driver.oops

    @property
    def lost_pages(self) -> int:
        """Pages in use that were lost: the harm."""
        return self.kernel.lost_pages()

    @property
    def harm(self) -> int:
        """Pages in use that were lost, the one that the driver died of included."""
        page = self.profile.page_size // PAGE_SIZE
        return self.lost_pages + (page if self.oops else 0)

    @property
    def taken_pages(self) -> int:
        """The most pages that were missing at once because of the balloon."""
        return self.kernel.peak_ballooned

    @property
    def parked_pages(self) -> int:
        """Pages missing now: in the balloon, or lost to it for ever."""
        return self.kernel.ballooned

    @property
    def leaked_pages(self) -> int:
        """Pages missing for ever: the driver gave others back in their place."""
        in_balloon = self.driver.balloon.frames * self.profile.page_size // PAGE_SIZE
        return self.kernel.ballooned - in_balloon
