"""One run, judged: a guest under a policy as one row.

Whether the verdict is right is judged by the truth that comes with the guest's profile,
and harm is counted in the guest's own memory, never taken from what a policy says.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from balloon_plugin.calls import Device
from balloon_plugin.compare.acts import perform
from balloon_plugin.compare.circumstance import USUAL, Circumstance
from balloon_plugin.compare.clerk import Phase
from balloon_plugin.compare.course import Course, Tell
from balloon_plugin.events import Judgement
from balloon_plugin.guests.traits import GuestProfile
from balloon_plugin.manager import make_device, policy_factory

__all__ = ["Row", "compare", "run", "usable_at_best"]


@dataclass(frozen=True, slots=True)
class Row:
    """What one guest did under one policy. Pages are 4 KiB pages.

    :ivar guest: the name of the guest that booted first.
    :ivar circumstance: the name of what was special.
    :ivar policy: the policy with its options.
    :ivar judged: the name of the guest that ran last, whom the verdict is about.
    :ivar truth: ``good``, ``buggy`` or ``undecided``, of that guest.
    :ivar verdict: the same three, at the end.
    :ivar state: the policy's own name for where it stood.
    :ivar harm_pages: pages in use that were lost, whoever lost them.
    :ivar taken_pages: the most that were missing before the user asked for any.
    :ivar parked_pages: still missing after the user asked for all of them back.
    :ivar steps: what the driver did until the verdict, ``None`` if there was none.
    :ivar usable: whether the balloon came to the user's target, and back to nothing.
    :ivar usable_at_best: whether any host could have achieved that.
    :ivar taken_page_seconds: what was missing before the user asked for any, times how
        long: until nothing had moved for some seconds. The guest's own work takes no
        time, so that pages which come back at once do not count.
    :ivar parked_page_seconds: the same after all were asked back.
    :ivar oops: what the driver died of, ``None`` if it lives; the page that it died of
        counts as harm.
    :ivar defects: names of the defects found.
    :ivar evidence: what showed what, a sentence each.
    """

    guest: str
    circumstance: str
    policy: str
    judged: str
    truth: str
    verdict: str
    state: str
    harm_pages: int
    taken_pages: int
    parked_pages: int
    steps: int | None
    usable: bool
    usable_at_best: bool
    taken_page_seconds: int = 0
    parked_page_seconds: int = 0
    oops: str | None = None
    defects: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether the verdict is the truth."""
        return self.verdict == self.truth

    def as_dict(self) -> dict[str, Any]:
        """Return the row as a value that JSON can carry."""
        return {**asdict(self), "right": self.right}


def usable_at_best(profile: GuestProfile, circumstance: Circumstance) -> bool:
    """Return whether any host could make this guest's balloon go up and down."""
    return not profile.unusable and not circumstance.hopeless


def run(
    profile: GuestProfile,
    policy: str,
    circumstance: Circumstance = USUAL,
    observers: Iterable[object] = (),
    tell: Tell | None = None,
) -> Row:
    """Run one guest under one policy.

    :param policy: a policy's name with its options.
    :param circumstance: what is special about this run.
    :param observers: see every event, for traces.
    :param tell: is told all that happens: the time in seconds, how many steps the guest
        did so far, and a sentence.
    :raises PluginError: if the policy cannot be made.
    :raises HostError: if the circumstance cannot be, for this guest.
    """
    make = functools.partial(_make, _factory(policy), policy)
    course = Course(profile, make, circumstance, perform, tuple(observers), tell)
    with contextlib.closing(course):
        course.test()
        taken = course.guest.taken_pages
        reached = course.ask(Phase.GROW, circumstance.target)
        back = course.ask(Phase.SHRINK, 0)
        verdict, guest, clerk = course.verdict(), course.guest, course.clerk
        decided = clerk.judgement is not Judgement.UNDECIDED
        return Row(
            guest=profile.name,
            circumstance=circumstance.name,
            policy=policy,
            judged=guest.profile.name,
            truth=guest.profile.truth.value,
            verdict=verdict.judgement.value,
            state=verdict.state,
            harm_pages=course.harm + guest.harm,
            taken_pages=taken,
            parked_pages=guest.parked_pages,
            steps=clerk.steps if decided else None,
            usable=reached and back,
            usable_at_best=usable_at_best(guest.profile, circumstance),
            taken_page_seconds=round(clerk.page_seconds[Phase.TEST]),
            parked_page_seconds=round(clerk.page_seconds[Phase.SHRINK]),
            oops=guest.oops,
            defects=tuple(defect.name for defect in verdict.defects),
            evidence=tuple(f"{item.event}: {item.shows}" for item in verdict.evidence),
        )


@functools.cache
def _factory(policy: str) -> Callable[[], object]:
    """Look a policy up once: that takes as long as half a run."""
    return policy_factory(policy)


def _make(factory: Callable[[], object], name: str) -> Device:
    return make_device(factory(), name=name)


def compare(
    guests: Sequence[GuestProfile],
    policies: Sequence[str],
    circumstances: Sequence[Circumstance] = (USUAL,),
) -> Iterator[Row]:
    """Yield a row for each guest in each circumstance under each policy."""
    return (
        run(guest, policy, circumstance)
        for guest, circumstance, policy in itertools.product(
            guests, circumstances, policies
        )
    )
