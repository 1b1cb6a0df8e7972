"""The policy ``probe``: the state machine of the RFC, as it was published.

David Gibson, "RFC: Partial workaround for buggy guest virtio-balloon driver", November
2012. A driver that reads ``num_pages`` in the wrong byte order finds 268435456 where 16
is meant. So ask for 16 pages before anything else, and look at what it says it took.
The patch is two tables, and stands here as such, with a small interpreter below them.

The holes of the RFC stay, because a comparison with anything else would be worth
nothing; ``docs/policies.md`` lists them. It is sounder than the patch only where the
device sees to it: a reset begins a new test (rule 4 of the architecture), and
``actual`` counts when its last byte is written (rule 5).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Any, Final

from balloon_plugin.events import (
    ActualWritten,
    Answer,
    Defect,
    DeviceReset,
    Event,
    Evidence,
    Gate,
    Judgement,
    Verdict,
)
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.policies.options import integer, is_whole

__all__ = ["GUEST_BUG_TARGET", "MAX_PAGES", "ProbePolicy", "State"]

GUEST_BUG_TARGET: Final = 16
"""Pages that the RFC asks for, under its own name there.

One page of a guest with 64 KiB pages, sixteen of one with 4 KiB.
"""

MAX_PAGES: Final = 1 << 20
"""Most pages that may be asked for: 4 GiB, which the guest misses during the test."""

_MAX_ACTUAL: Final = (1 << 32) - 1
"""``actual`` is a 32-bit field (VIRTIO 1.3 §5.5.4)."""


# --- the two tables -----------------------------------------------------------------


class State(enum.Enum):
    """``guest_bug_state`` of the patch."""

    TESTING = "TESTING"
    CLEANUP = "CLEANUP"
    BUGGY = "BUGGY"
    GOOD = "GOOD"


class _Shown(enum.Enum):
    """What the driver reads as its target."""

    TEST_TARGET = enum.auto()
    ZERO = enum.auto()
    REQUESTED = enum.auto()


@dataclass(frozen=True, slots=True)
class _Mask:
    """What a state lets through, and what it means."""

    num_pages: _Shown
    reclaim: bool
    targets: Answer
    judgement: Judgement
    reason: str = ""
    defects: tuple[Defect, ...] = ()


_STATES: Final = {
    # The patch stores the target and keeps the interrupt back "until we've finished".
    State.TESTING: _Mask(
        _Shown.TEST_TARGET,
        reclaim=False,
        targets=Answer.DEFERRED,
        judgement=Judgement.UNDECIDED,
        reason="the driver is being tested; the target takes effect if it is good",
    ),
    State.CLEANUP: _Mask(
        _Shown.ZERO,
        reclaim=False,
        targets=Answer.DEFERRED,
        judgement=Judgement.UNDECIDED,
        reason="the driver has yet to take back the pages of its test; "
        "the target takes effect when it has",
    ),
    # The patch prints this sentence, then falls through: it stores the target and
    # reports success. Its description (step 6) says "otherwise ignore it": so do we.
    State.BUGGY: _Mask(
        _Shown.ZERO,
        reclaim=False,
        targets=Answer.REFUSED,
        judgement=Judgement.BUGGY,
        reason="Guest is buggy, cannot use balloon",
        # The RFC takes this bug as a proxy for PAGE_SHIFT, which it does not look for.
        defects=(Defect.ENDIAN_TARGET,),
    ),
    State.GOOD: _Mask(
        _Shown.REQUESTED,
        reclaim=True,
        targets=Answer.ACCEPTED,
        judgement=Judgement.GOOD,
    ),
}


class _Size(enum.Enum):
    """``actual`` beside the pages asked for."""

    ZERO = enum.auto()
    WITHIN = enum.auto()
    ABOVE = enum.auto()


@dataclass(frozen=True, slots=True)
class _Move:
    """Where an ``actual`` leads, and what it shows; ``{pages}`` is filled in."""

    to: State
    shows: str


# Whatever is not in the table stays where it is: 0 while TESTING too, because "both
# buggy and non-buggy guests write a 0 before going on" (the patch).
_MOVES: Final = {
    (State.TESTING, _Size.WITHIN): _Move(
        State.CLEANUP,
        "The driver took no more than the {pages} pages asked for: it can read its "
        "target.",
    ),
    (State.TESTING, _Size.ABOVE): _Move(
        State.BUGGY,
        "Buggy guest detected, disabling balloon: it took more than the {pages} pages "
        "asked for.",
    ),
    (State.CLEANUP, _Size.ZERO): _Move(
        State.GOOD,
        "The driver took back the pages of its test: the balloon can be used.",
    ),
}


# --- their interpreter --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Session:
    """How far the test of one driver has come.

    :ivar pages: what the driver was asked for.
    :ivar actuals: the values that moved it; all the rest follows from them.
    """

    pages: int
    state: State = State.TESTING
    actuals: tuple[int, ...] = ()
    evidence: tuple[Evidence, ...] = ()

    def after(self, actual: int) -> _Session:
        """Return the session after this ``actual``; itself if nothing moved."""
        move = _MOVES.get((self.state, self._size(actual)))
        if move is None:
            return self
        evidence = Evidence(f"actual = {actual}", move.shows.format(pages=self.pages))
        return replace(
            self,
            state=move.to,
            actuals=(*self.actuals, actual),
            evidence=(*self.evidence, evidence),
        )

    def _size(self, actual: int) -> _Size:
        if actual == 0:
            return _Size.ZERO
        return _Size.WITHIN if actual <= self.pages else _Size.ABOVE


class ProbePolicy:
    """Ask for a few pages first, and believe a driver that takes no more: the RFC.

    TESTING advertises the test's target until the driver writes an ``actual`` other
    than 0. More than was asked for is BUGGY, until the driver is reset. Otherwise
    CLEANUP advertises 0 until ``actual`` is 0, and then the driver is GOOD. Only then
    are pages reclaimed, and a target that was deferred takes effect.

    Each state has a gate of its own, so a change of state is a change of the gate: the
    device announces it, as the patch calls ``virtio_notify_config``.

    :param pages: what the test asks for, in 4 KiB pages: a multiple of 16, or a good
        driver with 64 KiB pages has to take more; below 256, or a buggy one passes,
        because its first batch is 256 pages.
    """

    def __init__(self, *, pages: int | str = GUEST_BUG_TARGET) -> None:
        self._pages = integer("pages", pages, 1, MAX_PAGES)
        self._session = _Session(self._pages)

    @hookimpl
    def policy_observe(self, event: Event) -> None:
        """Move on what the driver writes to ``actual``; look at nothing else."""
        match event:
            case ActualWritten(actual=actual):
                self._session = self._session.after(actual)
            case DeviceReset():
                # The patch goes on with the state of the last driver, so that a reboot
                # from a good kernel into a buggy one is not noticed.
                self._session = _Session(self._pages)

    @hookimpl
    def policy_gate(self, requested: int) -> Gate:
        """Return the gate of the state."""
        mask = _STATES[self._session.state]
        num_pages = {
            _Shown.TEST_TARGET: self._session.pages,
            _Shown.ZERO: 0,
            _Shown.REQUESTED: requested,
        }
        return Gate(num_pages[mask.num_pages], mask.reclaim, mask.targets, mask.reason)

    @hookimpl
    def policy_verdict(self) -> Verdict:
        """Return the state, and the writes that led to it."""
        session = self._session
        mask = _STATES[session.state]
        return Verdict(
            mask.judgement, session.state.value, mask.defects, session.evidence
        )

    @hookimpl
    def policy_save(self) -> dict[str, Any]:
        """Return what was asked for, and the writes that moved the state."""
        session = self._session
        return {"pages": session.pages, "actuals": list(session.actuals)}

    @hookimpl
    def policy_load(self, state: dict[str, Any]) -> None:
        """Replay a saved session. It keeps the target that its driver was asked for.

        :raises ValueError: if no driver can have led to it.
        """
        self._session = _replayed(state)


def _replayed(state: dict[str, Any]) -> _Session:
    pages, actuals = state.get("pages"), state.get("actuals")
    if not is_whole(pages, 1, MAX_PAGES) or not isinstance(actuals, list):
        raise ValueError("a saved probe has pages and a list of actuals")
    session = _Session(pages)
    for actual in actuals:
        session = _replayed_move(session, actual)
    return session


def _replayed_move(session: _Session, actual: object) -> _Session:
    after = session.after(actual) if is_whole(actual, 0, _MAX_ACTUAL) else session
    if after is session:
        raise ValueError(f"actual = {actual!r} moves no probe in {session.state.value}")
    return after
