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
from balloon_plugin.policies.evidence.numbers import Encoding, Entries, swap32
from balloon_plugin.policies.evidence.session import MOST, Session
from balloon_plugin.policies.options import flag, integer, is_whole

__all__ = ["EvidencePolicy", "Stage"]

FIRST_TARGET: Final = 33
"""Pages of the first target.

Odd, so that each size of pages rounds it up to another number (33, 34, 36, 40, 48, 64),
and swapped it is 0x21000000, more than any guest has. 132 KiB, for some milliseconds.
"""

WIDER: Final = 4
"""Factor to the next target, where the first does not tell two kinds apart."""

WIDEST: Final = 4096
"""Pages at which to give up telling two kinds apart.

16 MiB, what one batch of an old driver with pages of 64 KiB takes anyway. Of 4 KiB: a
driver that counts larger ones is shown as much less.
"""

_FREE_BITS: Final = (6, 23)
"""Feature bits of a balloon that the specification has not given away (§5.5.3)."""


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
_WAITING = (*_PROBING, Stage.SILENT)


class EvidencePolicy:
    """Conclude from all that the driver shows, and work around what can be.

    :param patience: seconds without progress after which silence is an answer. The
        default is far more than a driver needs (milliseconds), or than Linux waits
        between two attempts to find memory (0.2 s).
    :param hold: show a driver that must not deflate the target that it has.
    :param swap: work around a target read in the wrong byte order.
    :param translate: work around wrong, but reversible numbers and units.
    :param align: round targets up to the guest's page.
    :param endian_safe: number of a feature bit to offer, 6 to 23; a driver that accepts
        it says of itself that it is right. None is by default: no such bit was ever
        allocated, so to offer one does not conform (VIRTIO 1.3 §2.2.2).
    """

    def __init__(
        self,
        *,
        patience: int | str = 5,
        hold: bool | str = True,
        swap: bool | str = True,
        translate: bool | str = True,
        align: bool | str = True,
        endian_safe: int | str | None = None,
    ) -> None:
        self._patience = integer("patience", patience, 1, 3600)
        self._hold = flag("hold", hold)
        self._swap = flag("swap", swap)
        self._translate = flag("translate", translate)
        self._align = flag("align", align)
        self._endian_safe = (
            None
            if endian_safe is None
            else integer("endian_safe", endian_safe, *_FREE_BITS)
        )
        self._facts = GuestFacts(ram=())
        self._requested = 0
        self._begin()

    def _begin(self) -> None:
        """Know nothing of the driver (rule 4)."""
        self._session = Session(self._facts)
        self._stage = self._slept = Stage.FILL
        self._goal = FIRST_TARGET
        self._nudges = 0
        self._still: float | None = None
        self._ready = False
        self._turned = False
        self._mute: tuple[Defect, ...] = ()

    # --- hooks ---

    @hookimpl
    def policy_features(self) -> int:
        """Offer the bit by which a driver says that it is right, if that is wanted."""
        return 0 if self._endian_safe is None else 1 << self._endian_safe

    @hookimpl
    def policy_observe(self, event: Event) -> None:
        """Let one event rule out what it rules out, and go on from there."""
        match event:
            case GuestDescribed(facts):
                self._describe(facts)
            case FeaturesAcked(features):
                self._session.accept(features)
                self._look_for_proof()
            case DriverReady():
                self._ready = True
                self._nudges += not self._session.reads
            case TargetRead(num_pages):
                self._session.read(num_pages)
            case PagesInflated(pfns) if pfns:
                self._inflate(pfns)
            case PagesDeflated(pfns) if pfns:
                self._session.deflate(pfns)
                self._moved()
            case ActualWritten(actual):
                self._write(actual)
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
        answer = Answer.DEFERRED if self._stage in _WAITING else Answer.REFUSED
        return Gate(
            self._advertised(),
            reclaim=opened and self._knows_pages(),
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
            "slept": self._slept.value,
            "goal": self._goal,
            "ready": self._ready,
            "turned": self._turned,
            "mute": [defect.name for defect in self._mute],
        }

    @hookimpl
    def policy_load(self, state: dict[str, Any]) -> None:
        """Take over a saved session.

        :raises ValueError: if it is damaged.
        """
        try:
            session = Session.load(self._facts, state["session"])
            stage, slept = Stage(state["stage"]), Stage(state["slept"])
            goal = state["goal"]
            mute = tuple(Defect[name] for name in state["mute"])
            ready, turned = bool(state["ready"]), bool(state["turned"])
        except (KeyError, TypeError) as error:
            message = f"not a saved evidence policy: {error!r}"
            raise ValueError(message) from error
        if not is_whole(goal, 0, MOST):
            raise ValueError(f"{goal!r} is no target to have shown a driver")
        self._begin()
        self._session, self._stage, self._slept = session, stage, slept
        self._goal, self._mute = goal, mute
        self._ready, self._turned = ready, turned
        # This host may know what rules out all that the other one had left.
        self._advance()

    # --- conclusions ---

    def _judgement(self) -> Judgement:
        if self._stage is Stage.GOOD:
            return Judgement.GOOD
        shut = self._stage not in _PROBING
        return Judgement.BUGGY if shut or self._all_wrong() else Judgement.UNDECIDED

    def _all_wrong(self) -> bool:
        return all(kind.defects for kind in self._session.alive)

    def _hopeless(self) -> bool:
        """Return whether nothing but to hold the driver where it is can be right."""
        lead, alive = self._session.lead, self._session.alive
        return (
            lead is None
            or not lead.deflates
            or all(kind.frees_wrong or not kind.deflates for kind in alive)
        )

    def _knows_pages(self) -> bool:
        """Return whether all kinds left mean the same pages by what was inflated."""
        alive = self._session.alive
        return (
            len(alive) == 1
            or not self._session.entries
            or len({_numbering(kind) for kind in alive}) == 1
        )

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

    # --- events ---

    def _describe(self, facts: GuestFacts) -> None:
        """Learn of the guest; as long as nothing was inflated, begin anew with that."""
        self._facts, before = facts, self._session
        before.describe(facts)
        if before.fresh:
            session = self._session = Session(facts)
            session.reads, session.actual = before.reads, before.actual
            self._goal, self._mute = FIRST_TARGET, ()
            self._enter(Stage.FILL)
            if before.features is not None:
                session.accept(before.features)
        elif self._stage is Stage.HELD and not self._hopeless():
            # What could not be told apart may be now.
            self._resume()
        self._look_for_proof()

    def _look_for_proof(self) -> None:
        """Believe at once what needs no probe."""
        proof = proofs.find(self._session, self._endian_safe)
        if proof is not None and self._stage in _WAITING:
            self._session.trust(proofs.proven(self._session.alive))
            self._session.note(proof.seen, proof.shows)
            self._enter(Stage.GOOD)

    def _inflate(self, entries: Entries) -> None:
        session, before = self._session, self._session.alive
        if not session.reads:
            session.read(self._advertised())
        if not before and self._asked():
            # An unknown driver, which goes on: it reads that in the other byte order.
            self._turned = not self._turned
        session.inflate(entries)
        self._moved()
        if len(session.alive) < len(before):
            if self._stage is Stage.HELD:
                self._resume()
            self._tell()

    def _moved(self) -> None:
        """Take note that pages went in or out: whoever was silent is not any more."""
        self._still = None
        if self._stage is Stage.SILENT:
            self._session.note("pages moved", "The driver acts after all.")
            self._enter(self._slept)
        if Defect.NO_DEFLATE in self._mute:
            self._session.note("pages moved", "The driver acts after all.")
            self._mute = _without(self._mute, Defect.NO_DEFLATE)
            self._resume()

    def _write(self, actual: int) -> None:
        self._session.write(actual)
        lead, mute = self._session.lead, self._mute
        if Defect.NO_ACTUAL in mute and lead and self._session.agrees(lead):
            self._session.note(f"actual = {actual}", "The driver writes it after all.")
            self._mute = _without(mute, Defect.NO_ACTUAL)

    def _resume(self) -> None:
        """See on from where the driver stands, without a page more."""
        lead = self._session.lead
        if lead is not None:
            self._goal = lead.units(self._session.entries)
            self._enter(Stage.FILL)

    # --- stages ---

    def _advance(self) -> None:
        """Go on to the next stage if this one has shown what it can."""
        lead = self._session.lead
        if lead is None or self._hopeless():
            if self._stage is not Stage.HELD:
                self._enter(Stage.HELD)
            return
        if self._stage is Stage.GOOD and lead.defects:
            self._resume()  # believed too early
        if self._stage is Stage.WORKING and not lead.defects and not self._mute:
            self._enter(Stage.GOOD)
        if self._stage in _PROBING:
            self._goal = max(self._goal, self._floor(lead))
            if self._stands(lead):
                (self._filled if self._stage is Stage.FILL else self._shrunk)(lead)

    def _floor(self, lead: DriverKind) -> int:
        """Return the least goal that does not ask for a deflation in FILL."""
        return lead.units(self._session.entries) if self._stage is Stage.FILL else 0

    def _stands(self, lead: DriverKind) -> bool:
        """Return whether the driver reached the goal and says so in ``actual``."""
        silent = Defect.NO_ACTUAL in self._mute or not lead.writes_actual
        return self._reached(lead) and (silent or self._session.agrees(lead))

    def _reached(self, lead: DriverKind) -> bool:
        units = lead.units(self._session.entries)
        return units == lead.stops_at(lead.shown(self._goal))

    def _can_shrink(self, lead: DriverKind) -> bool:
        """Return whether a smaller target does no harm, and there is one."""
        frees_wrong = any(kind.frees_wrong for kind in self._session.alive)
        return not frees_wrong and lead.units(self._session.entries) > self._least()

    def _least(self) -> int:
        """Return the smallest balloon that all kinds left can have."""
        return max(kind.least for kind in self._session.alive)

    def _filled(self, lead: DriverKind) -> None:
        """Shrink if that does no harm; if it might, see whether more pages tell."""
        units, least = lead.units(self._session.entries), self._least()
        wider = units * WIDER if units > least else 2 * least
        scale = max(kind.scale for kind in self._session.alive)
        if self._can_shrink(lead):
            self._goal = least
            self._enter(Stage.SHRINK)
        elif units <= least or wider * scale <= WIDEST:
            self._goal = wider
            self._still = None
        else:
            self._session.note(
                f"{units} units taken",
                "A page-size bug still explains it; to shrink might do harm.",
            )
            self._enter(Stage.HELD)

    def _shrunk(self, lead: DriverKind) -> None:
        """Conclude: only a driver that reads this target and deflates stands here."""
        session, shown = self._session, lead.shown(self._goal)
        session.keep(
            lambda kind: (
                kind.deflates and kind.units(session.entries) == kind.stops_at(shown)
            ),
            lambda: f"stands at {self._goal} after a larger target",
        )
        remedies = {self._remedy(kind) for kind in session.alive}
        if len(remedies) > 1:
            first, *_, other = session.alive
            session.note(
                "page numbers",
                f"By the same numbers {_named(first)} and {_named(other)} mean other "
                "pages.",
            )
            self._enter(Stage.HELD)
            return
        session.trust(session.alive)
        self._enter(self._destination(session.alive[0]))

    def _destination(self, lead: DriverKind) -> Stage:
        """Return where a driver belongs that stands where it was told to."""
        if not lead.defects and not self._mute:
            return Stage.GOOD
        return Stage.WORKING if self._usable(lead) else Stage.HELD

    def _usable(self, lead: DriverKind) -> bool:
        """Return whether all remedies that it takes are switched on."""
        needed = {
            "swap": lead.swaps_target and not self._swap,
            "translate": (_translation(lead) != Translation() and not self._translate),
        }
        for option in (option for option, lacks in needed.items() if lacks):
            self._session.note(f"{option}=no", "Its balloon could work, but for that.")
        return not any(needed.values())

    def _remedy(self, kind: DriverKind) -> tuple[object, ...]:
        writes = Defect.NO_ACTUAL not in self._mute
        swaps_actual = kind.swaps_actual and writes
        return _numbering(kind), kind.swaps_target, swaps_actual, kind.scale

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        self._still = None
        self._tell()

    def _tell(self) -> None:
        """Keep as evidence what is done about the driver from now on."""
        for event, shows in self._acts():
            self._session.note(event, shows)

    def _acts(self) -> list[tuple[str, str]]:
        """Return what is done about the driver in this stage, in words."""
        lead = self._session.lead
        if self._stage is Stage.HELD:
            how = "the size that it has: nothing to do" if self._hold else "0"
            return [("hold" if self._hold else "hold=no", f"It is shown {how}.")]
        if self._stage not in _OPEN or lead is None:
            return []
        acts = []
        if lead.swaps_target:
            acts.append(("swap", "Its target is shown in the other byte order."))
        if _translation(lead) != Translation():
            acts.append(("translate", "Its numbers and units are put right."))
        if lead.page > lead.scale and self._align:
            whole = f"whole pages of {lead.page * 4} KiB"
            acts.append(("align", f"Its targets are rounded up to {whole}."))
        return acts

    # --- time ---

    def _pass_time(self, now: float) -> None:
        """Wake a driver that stands still, and let its silence count in the end."""
        if self._stage not in _PROBING or not self._present():
            return
        if self._still is None or now < self._still:
            self._still = now
        if now - self._still >= self._patience:
            self._expire()
        elif now > self._still:
            self._nudges += 1

    def _present(self) -> bool:
        """Return whether there is a driver: to read a target it takes none."""
        session = self._session
        return self._ready or session.features is not None or not session.fresh

    def _expire(self) -> None:
        """Conclude from silence."""
        lead = self._session.lead
        if lead is None:
            return
        after = f"{self._patience} s of silence"
        if self._reached(lead) and not self._session.agrees(lead):
            never = self._session.actual is None
            shows = "never writes actual" if never else "does not write its size"
            self._session.note(after, f"The driver {shows}.")
            self._mute += (Defect.NO_ACTUAL,)
            self._still = None
        elif self._stage is Stage.SHRINK and self._asked():
            self._session.note(after, "The driver does not deflate.")
            self._mute += (Defect.NO_DEFLATE,)
            self._enter(Stage.HELD)
        elif self._stage is Stage.FILL and self._can_shrink(lead):
            self._session.note(after, "No more memory: go on with what there is.")
            self._goal = lead.units(self._session.entries)
            self._still = None
        else:
            knows = "has" if self._asked() else "did not ask for"
            self._session.note(
                after, f"The driver {knows} its target, and does not act."
            )
            self._slept = self._stage
            self._enter(Stage.SILENT)

    def _asked(self) -> bool:
        """Return whether the driver read what it is shown."""
        return self._advertised() in self._session.reads

    # --- what the driver is shown ---

    def _advertised(self) -> int:
        """Return the target to show: a probe's, the size held, or the user's."""
        lead = self._session.lead
        if self._stage in _WAITING:
            return self._shown(self._goal)
        if self._stage in _OPEN and lead is not None:
            return self._shown(self._units(lead))
        return self._held() if self._hold else 0

    def _shown(self, units: int) -> int:
        lead = self._session.lead
        return lead.shown(min(units, MOST)) if lead is not None else min(units, MOST)

    def _held(self) -> int:
        """Return what the driver reads as the size that it has.

        One that no kind explains any more is taken for what it was last taken for.
        """
        session = self._session
        kind = session.lead or session.last
        units = kind.units(session.entries) if kind else session.entries
        shown = kind.shown(units) if kind else units
        return swap32(shown) if self._turned else shown

    def _units(self, lead: DriverKind) -> int:
        """Return the user's target in the driver's units, rounded up to its page.

        Drivers before Linux 6.7 never come to rest at a target between two pages.
        """
        pages = self._requested
        if self._align:
            whole = -(-pages // lead.page) * lead.page
            # More than there is it cannot reach, if it is known how much there is.
            pages = min(whole, self._facts.ram_pages or whole)
        return -(-pages // lead.scale)

    def _translation(self) -> Translation:
        lead = self._session.lead
        return Translation() if lead is None else _translation(lead)


def _translation(kind: DriverKind) -> Translation:
    """Return how to read the numbers and units of a kind."""
    return Translation(
        swap_pfns=kind.encoding is Encoding.SWAPPED,
        slot_entries=2 if kind.encoding is Encoding.SLOTS else 1,
        pages_per_pfn=kind.page if kind.encoding is Encoding.UNSHIFTED else 1,
        swap_actual=kind.swaps_actual,
        pages_per_unit=kind.scale,
    )


def _numbering(kind: DriverKind) -> tuple[Encoding, int]:
    """Return what decides which pages the numbers of a kind stand for."""
    counts = kind.encoding in (Encoding.UNSHIFTED, Encoding.SHIFTED)
    return kind.encoding, kind.page if counts else 1


def _named(kind: DriverKind) -> str:
    return f"{kind.name} ({kind.page * 4} KiB pages)"


def _without(defects: tuple[Defect, ...], gone: Defect) -> tuple[Defect, ...]:
    return tuple(defect for defect in defects if defect is not gone)
