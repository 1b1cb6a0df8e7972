"""What can happen in the middle of a run: one function for each act."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from balloon_plugin.compare.circumstance import RETARGET, Act, Turn
from balloon_plugin.compare.course import Course
from balloon_plugin.errors import HostError
from balloon_plugin.guests.profiles import find
from balloon_plugin.guests.traits import Engine

__all__ = ["ACTS", "perform"]

OOM_UNITS: Final = 256
"""Units that a driver gives back when memory is short: a batch
(``VIRTBALLOON_OOM_NOTIFY_PAGES``)."""

MOVED_PAGES: Final = 3
"""Guest pages that compaction moves at a time."""

AWAY: Final = 2.0
"""Seconds for which a guest hibernates or is at its firmware."""


def _reload(course: Course, _turn: Turn) -> None:
    guest = course.guest
    if guest.profile.driver.removable and _alive(course):
        guest.driver.remove()
        course.run_alone(lambda: guest.driver.removed)
        if guest.driver.removed:
            guest.insert_module()


def _alive(course: Course) -> bool:
    absent = course.guest.profile.driver.engine is Engine.ABSENT
    return not absent and course.guest.oops is None


def _save_restore(course: Course, _turn: Turn) -> None:
    course.replace_device(course.new_device())


def _retarget(course: Course, _turn: Turn) -> None:
    course.set_target(RETARGET)


def _stats(course: Course, _turn: Turn) -> None:
    course.ask_for_statistics()


def _oom(course: Course, _turn: Turn) -> None:
    course.again |= course.guest.driver.deflate_on_oom(OOM_UNITS)


def _compaction(course: Course, _turn: Turn) -> None:
    course.guest.driver.move_pages(MOVED_PAGES)


def _hibernation(course: Course, _turn: Turn) -> None:
    if _alive(course):
        course.guest.driver.freeze()
        course.guest.run()
        course.host.advance(AWAY)
        course.guest.driver.thaw()


def _interrupt(course: Course, _turn: Turn) -> None:
    course.host.notify_config()


def _kexec(course: Course, turn: Turn) -> None:
    profile, setup = find(turn.guest), course.host.setup
    modern = profile.modern and not course.circumstance.site.legacy
    if profile.byte_order is not setup.byte_order or modern is setup.legacy:
        raise HostError(
            f"{turn.guest} cannot run on the machine of {course.guest.profile.name}: "
            "take one with the same byte order and bus"
        )
    course.boot(profile)


def _reboot(course: Course, turn: Turn) -> None:
    course.host.reset()
    course.host.advance(AWAY)
    _kexec(course, turn)


ACTS: Final[dict[Act, Callable[[Course, Turn], None]]] = {
    Act.MODULE_RELOAD: _reload,
    Act.SAVE_RESTORE: _save_restore,
    Act.RETARGET: _retarget,
    Act.STATS: _stats,
    Act.OOM: _oom,
    Act.COMPACTION: _compaction,
    Act.HIBERNATION: _hibernation,
    Act.INTERRUPT: _interrupt,
    Act.REBOOT: _reboot,
    Act.KEXEC: _kexec,
}
"""What each act does."""


def perform(course: Course, turn: Turn) -> None:
    """Let happen what a turn says.

    :raises HostError: if it cannot happen to that guest.
    """
    ACTS[turn.act](course, turn)
