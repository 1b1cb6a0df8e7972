"""The policy itself: what to show the driver next, and what to conclude.

It goes through stages. FILL shows a small, odd target: its exact number of pages gives
the guest's page size away, and what a driver with a wrong byte order sees is enormous.
SHRINK shows a smaller one, which is not 0, since 0 is the same in both byte orders:
only a driver that reads its target right and deflates comes to stand on it. GOOD
believes the driver, WORKING works around what is wrong with it, HELD shows it the
target that it reads as "nothing to do", because to some drivers any other does harm, 0
most of all.

The driver reads its target again as soon as a buffer is returned, and every buffer is
seen before that, so the decision is always made in time.
"""

from __future__ import annotations

import enum
from typing import Any, Final

from balloon_plugin.events import (
    ActualWritten,
    Answer,
    Defect,
    DeviceReset,
    DriverReady,
    Event,
    FeaturesAcked,
    Gate,
    GuestDescribed,
    GuestFacts,
    Judgement,
    PagesDeflated,
    PagesInflated,
    TargetRead,
    TimePassed,
    Translation,
    Verdict,
)
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.policies.evidence import proofs
from balloon_plugin.policies.evidence.drivers import DriverKind
from balloon_plugin.policies.evidence.numbers import Encoding
from balloon_plugin.policies.evidence.session import Session
from balloon_plugin.policies.options import flag, integer

__all__ = ["EvidencePolicy", "Stage"]

FIRST_TARGET: Final = 33
"""Pages of the first target.

Odd, so that each size of pages rounds it up to another number (33, 34, 36, 40, 48, 64),
and swapped it is 0x21000000, more than any guest has. 132 KiB, for some milliseconds.
"""

WIDER: Final = 4
"""Factor to the next target, where the first does not tell two kinds apart."""

WIDEST: Final = 2112
"""Pages (33 * 64, 8.25 MiB) at which to give up telling two kinds apart."""


class Stage(enum.Enum):
    """Where the policy stands with a driver."""

    FILL = "FILL"
    SHRINK = "SHRINK"
    GOOD = "GOOD"
    WORKING = "WORKING"
    HELD = "HELD"
    SILENT = "SILENT"


_PROBING = (Stage.FILL, Stage.SHRINK)
_OPEN = (Stage.GOOD, Stage.WORKING)


class EvidencePolicy:
    """Conclude from all that the driver shows, and work around what can be.

    :param patience: seconds without progress after which silence is an answer. The
        default is far more than a driver needs (milliseconds), or than Linux waits
        between two attempts to find memory (0.2 s).
    :param hold: show a driver that must not deflate the target that it has.
    :param swap: work around a target read in the wrong byte order.
    :param translate: work around wrong, but reversible numbers and units.
    :param align: round targets up to the guest's page.
    """

    def __init__(
        self,
        *,
        patience: int | str = 5,
        hold: bool | str = True,
        swap: bool | str = True,
        translate: bool | str = True,
        align: bool | str = True,
    ) -> None:
        self._patience = integer("patience", patience, 1, 3600)
        self._hold = flag("hold", hold)
        self._swap = flag("swap", swap)
        self._translate = flag("translate", translate)
        self._align = flag("align", align)
        self._facts = GuestFacts(ram=())
        self._requested = 0
        self._begin()

    def _begin(self) -> None:
        """Know nothing of the driver (rule 4)."""
        self._session = Session(self._facts)
        self._stage = Stage.FILL
        self._goal = FIRST_TARGET
        self._nudges = 0
        self._still: float | None = None
        self._ready = False
        self._mute: tuple[Defect, ...] = ()

    # --- hooks ---

    @hookimpl
    def policy_observe(self, event: Event) -> None:
        """Let one event rule out what it rules out, and go on from there."""
        session, advertised = self._session, self._advertised()
        match event:
            case GuestDescribed(facts):
                self._facts = facts
                session.know(facts, session.features)
                self._look_for_proof()
            case FeaturesAcked(features):
                session.know(session.facts, features)
                self._look_for_proof()
            case DriverReady():
                self._ready = True
                self._nudges += not session.reads
            case TargetRead(num_pages):
                session.read(num_pages)
                self._wake(Stage.SILENT)
            case PagesInflated(pfns):
                session.inflate(pfns, advertised)
                self._moved()
            case PagesDeflated(pfns):
                session.deflate(pfns)
                self._moved()
            case ActualWritten(actual):
                session.write(actual)
                self._wake(Stage.SILENT)
            case TimePassed(now):
                self._pass_time(now)
            case DeviceReset():
                self._begin()
        self._advance()

    @hookimpl
    def policy_gate(self, requested: int) -> Gate:
        """Return the gate of the stage."""
        self._requested = requested
        opened = self._stage in _OPEN
        answer = Answer.DEFERRED if self._stage in _PROBING else Answer.REFUSED
        return Gate(
            self._advertised(),
            reclaim=opened,
            targets=Answer.ACCEPTED if opened else answer,
            reason="" if opened else self._reason(),
            translation=self._translation() if opened else Translation(),
            nudges=self._nudges,
        )

    @hookimpl
    def policy_verdict(self) -> Verdict:
        """Return what is concluded: a defect counts once every kind left has it."""
        return Verdict(
            self._judgement(),
            self._stage.value,
            self._defects(),
            tuple(self._session.evidence),
        )

    @hookimpl
    def policy_save(self) -> dict[str, Any]:
        """Return the session, and where in it the policy stands."""
        return {
            "session": self._session.save(),
            "stage": self._stage.value,
            "goal": self._goal,
            "ready": self._ready,
            "mute": [defect.name for defect in self._mute],
        }

    @hookimpl
    def policy_load(self, state: dict[str, Any]) -> None:
        """Take over a saved session."""
        try:
            session = Session.load(self._facts, state["session"])
            stage, goal = Stage(state["stage"]), int(state["goal"])
            mute = tuple(Defect[name] for name in state["mute"])
        except (KeyError, TypeError) as error:
            message = f"not a saved evidence policy: {error!r}"
            raise ValueError(message) from error
        self._begin()
        self._session, self._stage, self._goal = session, stage, goal
        self._ready, self._mute = bool(state.get("ready")), mute

    # --- conclusions ---

    def _judgement(self) -> Judgement:
        if self._stage is Stage.GOOD:
            return Judgement.GOOD
        shut = self._stage not in _PROBING
        return Judgement.BUGGY if shut or self._all_wrong() else Judgement.UNDECIDED

    def _all_wrong(self) -> bool:
        return all(kind.defects for kind in self._session.alive)

    def _defects(self) -> tuple[Defect, ...]:
        """Return the defects that every kind left has, in the order of the table."""
        alive = self._session.alive
        common = alive[0].defects if alive else ()
        for kind in alive:
            common = tuple(defect for defect in common if defect in kind.defects)
        return common + tuple(item for item in self._mute if item not in common)

    def _reason(self) -> str:
        if self._stage in _PROBING:
            return "the driver is being tested; the target takes effect after that"
        if self._stage is Stage.SILENT:
            return "the driver does not react, so it cannot be judged"
        named = ", ".join(defect.value for defect in self._defects())
        return f"the balloon is shut: the driver {named or 'cannot be believed'}"

    # --- stages ---

    def _look_for_proof(self) -> None:
        """Believe at once what needs no probe."""
        proof = proofs.find(self._session)
        if proof is not None and self._stage is Stage.FILL:
            self._session.alive = proofs.proven(self._session.alive)
            self._session.tracked = False
            self._session.note(proof.seen, proof.shows)
            self._enter(Stage.GOOD)

    def _advance(self) -> None:
        """Go on to the next stage if this one has shown what it can."""
        lead = self._session.lead
        if lead is None or all(kind.frees_wrong for kind in self._session.alive):
            if self._stage is not Stage.HELD:
                self._enter(Stage.HELD)
        elif self._stage is Stage.GOOD and lead.defects:
            # Believed too early: see on from where it stands, without a page more.
            self._goal = lead.units(self._session.entries)
            self._enter(Stage.FILL)
        if lead is not None and self._stage in _PROBING:
            self._goal = max(self._goal, self._floor(lead))
            if self._stands(lead):
                (self._filled if self._stage is Stage.FILL else self._shrunk)(lead)

    def _floor(self, lead: DriverKind) -> int:
        """Return the least goal that does not ask for a deflation in FILL."""
        return lead.units(self._session.entries) if self._stage is Stage.FILL else 0

    def _stands(self, lead: DriverKind) -> bool:
        """Return whether the driver reached the goal and says so in ``actual``."""
        units = lead.units(self._session.entries)
        silent = Defect.NO_ACTUAL in self._mute or not lead.writes_actual
        return units == lead.stops_at(lead.shown(self._goal)) and (
            silent or self._session.agrees(lead)
        )

    def _filled(self, lead: DriverKind) -> None:
        """Shrink, if no kind left does harm by it and there is something to shrink."""
        units = lead.units(self._session.entries)
        least = max(kind.least for kind in self._session.alive)
        if not any(kind.frees_wrong for kind in self._session.alive) and units > least:
            self._goal = least
            self._enter(Stage.SHRINK)
        elif self._goal * WIDER <= WIDEST:
            self._goal = max(self._goal * WIDER, 2 * least)
            self._still = None
        else:
            self._session.note(f"{units} pages", "still explained by a page-size bug")
            self._enter(Stage.HELD)

    def _shrunk(self, lead: DriverKind) -> None:
        """Conclude: only a driver that reads this target and deflates stands here."""
        shown = lead.shown(self._goal)
        self._session.keep(
            lambda kind: (
                kind.deflates
                and kind.units(self._session.entries) == kind.stops_at(shown)
            ),
            f"stands at {self._goal} after a larger target",
        )
        if not self._all_wrong():
            self._session.alive = proofs.proven(self._session.alive, strictly=True)
        self._session.tracked = False
        self._session.taken.clear()
        self._enter(self._destination())

    def _destination(self) -> Stage:
        lead = self._session.lead
        if lead is None:
            return Stage.HELD
        if not lead.defects and not self._mute:
            return Stage.GOOD
        agree = len({self._remedy(kind) for kind in self._session.alive}) == 1
        usable = agree and lead.deflates and not lead.frees_wrong
        swaps = self._swap or not lead.swaps_target
        translates = self._translate or self._translation() == Translation()
        return Stage.WORKING if usable and swaps and translates else Stage.HELD

    @staticmethod
    def _remedy(kind: DriverKind) -> tuple[object, ...]:
        return kind.encoding, kind.swaps_target, kind.swaps_actual, kind.scale

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        self._still = None

    # --- time ---

    def _moved(self) -> None:
        self._still = None
        self._wake(Stage.SILENT)

    def _wake(self, stage: Stage) -> None:
        """Go on testing a driver that was taken for silent."""
        if self._stage is stage:
            self._enter(Stage.FILL)

    def _pass_time(self, now: float) -> None:
        """Wake a driver that stands still, and let its silence count in the end."""
        if self._stage not in _PROBING or not self._present():
            return
        if self._still is None:
            self._still = now
        if now - self._still >= self._patience:
            self._expire()
        elif now > self._still:
            self._nudges += 1

    def _present(self) -> bool:
        session = self._session
        return self._ready or session.features is not None or bool(session.reads)

    def _expire(self) -> None:
        """Conclude from silence."""
        lead, entries = self._session.lead, self._session.entries
        if lead is None:
            return
        after = f"{self._patience} s of silence"
        reached = lead.units(entries) == lead.stops_at(lead.shown(self._goal))
        if reached and not self._session.agrees(lead):
            self._session.note(after, "the driver does not write actual")
            self._mute += (Defect.NO_ACTUAL,)
            self._still = None
        elif self._stage is Stage.SHRINK:
            self._session.note(after, "the driver does not deflate")
            self._mute += (Defect.NO_DEFLATE,)
            self._enter(Stage.HELD)
        elif lead.units(entries) > lead.least:
            self._session.note(after, "no more memory: go on with what there is")
            self._goal = lead.units(entries)
            self._still = None
        else:
            self._session.note(after, "the driver does not react to its target")
            self._enter(Stage.SILENT)

    # --- what the driver is shown ---

    def _advertised(self) -> int:
        """Return the target to show: a probe's, the size held, or the user's."""
        lead = self._session.lead
        if self._stage in _PROBING or self._stage is Stage.SILENT:
            return self._shown(self._goal)
        if self._stage in _OPEN and lead is not None:
            return lead.shown(self._units(lead))
        return self._shown(self._held()) if self._hold else 0

    def _shown(self, units: int) -> int:
        lead = self._session.lead
        return lead.shown(units) if lead is not None else units

    def _held(self) -> int:
        lead = self._session.lead
        return lead.units(self._session.entries) if lead else self._session.entries

    def _units(self, lead: DriverKind) -> int:
        """Return the user's target in the driver's units, rounded up to its page.

        Drivers before Linux 6.7 never come to rest at a target between two pages.
        """
        pages = self._requested
        if self._align:
            pages = min(-(-pages // lead.page) * lead.page, self._facts.ram_pages)
        return -(-pages // lead.scale)

    def _translation(self) -> Translation:
        lead = self._session.lead
        if lead is None:
            return Translation()
        return Translation(
            swap_pfns=lead.encoding is Encoding.SWAPPED,
            slot_entries=2 if lead.encoding is Encoding.SLOTS else 1,
            pages_per_pfn=lead.page if lead.encoding is Encoding.UNSHIFTED else 1,
            swap_actual=lead.swaps_actual,
            pages_per_unit=lead.scale,
        )
