"""Talking: to the guest in commands, to the device in calls, to a person in steps.

What the chapters of a story have in common: they wait, while everything that happens is
taken in and told, and give up when it takes too long or the guest dies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from balloon_plugin.boot.guest import GuestReport
from balloon_plugin.boot.plan import Kind, Plan, Report, Step
from balloon_plugin.boot.stage import Stage
from balloon_plugin.boot.view import View
from balloon_plugin.calls import Device

__all__ = ["GoneWrongError", "Talk"]

_SIGN_OF_LIFE: Final = 0.1
"""Seconds between two signs of life while one waits."""

_T = TypeVar("_T")


class GoneWrongError(Exception):
    """The story cannot go on; the message is a sentence that says why."""


class Talk:
    """A conversation with one guest, one device and one person.

    :param start: when the story began, on the monotonic clock.

    :ivar view: what is known so far.
    :ivar quiet: whether news of the device are no longer worth telling.
    """

    def __init__(self, stage: Stage, plan: Plan, report: Report, start: float) -> None:
        self._stage = stage
        self._timeout = plan.timeout
        self._report = report
        self._start = start
        self.view = View()
        self.quiet = False

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def tell(self, kind: Kind, text: str) -> None:
        """Tell the person a step, after all that happened before it."""
        now = self.elapsed
        while self._take_next(0.0):
            pass
        self._report(Step(now, kind, text))

    def send(self, command: str) -> None:
        """Give the guest a command, to which an answer is expected."""
        self.view.forget_reply()
        self._stage.guest.send(command)

    def ask(self, command: str) -> GuestReport:
        """Give the guest a command; return its numbers from after it.

        :raises GoneWrongError: if it cannot do that.
        """
        self.send(command)
        report = self.hear_report(command)
        if self.view.failure is not None:
            raise GoneWrongError(f"the guest could not obey: {self.view.failure}")
        return report

    def hear_report(self, command: str) -> GuestReport:
        """Return the numbers that follow the answer to a command."""
        self.wait(lambda: self.view.report is not None, f"no answer to {command!r}")
        report = self.view.report
        assert report is not None  # noqa: S101 - just waited for
        return report

    def device(self, function: Callable[[Device], _T]) -> _T:
        """Do something to the device."""
        return self._stage.with_device(function)

    def memory_held(self) -> int | None:
        """Return the bytes of host memory behind the guest's."""
        return self._stage.guest.memory_held()

    def wait(self, done: Callable[[], bool], so_far: str | Callable[[], str]) -> None:
        """Take in what happens until ``done``.

        :param so_far: how far it has come, for who looks on and for who gives up.
        :raises GoneWrongError: if it takes too long, or the guest ends or comes to harm
            meanwhile.
        """
        sign = self.elapsed + _SIGN_OF_LIFE
        while not done():
            self._take_next(min(sign, self._timeout) - self.elapsed)
            if self.view.trouble is not None:
                raise GoneWrongError(self.view.trouble)
            if self.view.ended is not None and not done():
                raise GoneWrongError(
                    f"the guest ended with status {self.view.ended}: "
                    f"{self.view.last_words}"
                )
            if self.elapsed >= self._timeout and not done():
                raise GoneWrongError(f"{_text(so_far)} after {self._timeout:g} s")
            if self.elapsed >= sign:
                sign = self.elapsed + _SIGN_OF_LIFE
                self.tell(Kind.WAITING, _text(so_far))

    def _take_next(self, timeout: float) -> bool:
        """Take in what happens next; return whether anything did."""
        happening = self._stage.next(timeout)
        if happening is None:
            return False
        for kind, text in self.view.take(happening):
            if not self.quiet:
                self._report(Step(happening.at - self._start, kind, text))
        return True


def _text(so_far: str | Callable[[], str]) -> str:
    return so_far if isinstance(so_far, str) else so_far()
