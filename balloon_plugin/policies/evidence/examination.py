"""The examination of one driver: what to show it next, and what comes of that.

It begins anew with every driver session. The driver reads its target again as soon as a
buffer is returned, and every buffer is seen before that, so each decision is made in
time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from balloon_plugin.events import (
    ActualWritten,
    Defect,
    DriverReady,
    Event,
    FeaturesAcked,
    GuestDescribed,
    GuestFacts,
    PagesDeflated,
    PagesInflated,
    QueueSeen,
    TargetRead,
    TargetRequested,
    TimePassed,
)
from balloon_plugin.policies.evidence import proofs, saved
from balloon_plugin.policies.evidence.drivers import DriverKind
from balloon_plugin.policies.evidence.numbers import swap32
from balloon_plugin.policies.evidence.patience import Patience, Silence
from balloon_plugin.policies.evidence.remedies import Remedies, remedy
from balloon_plugin.policies.evidence.session import MOST, Session
from balloon_plugin.policies.evidence.stages import (
    OPEN,
    PROBING,
    WAITING,
    Stage,
    is_hopeless,
)
from balloon_plugin.policies.options import is_whole

__all__ = ["Examination"]

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


class Examination:
    """One driver session as the policy sees it.

    :param facts: what the host knows of the guest.
    :param remedies: what may be done about a driver.
    :param patience: seconds without progress after which silence is an answer.
    :param endian_safe: the feature bit by which a driver says that it is right, if that
        is offered.

    :ivar session: what was seen, and the kinds of drivers that explain it.
    :ivar stage: where the policy stands.
    :ivar mute: defects that silence has shown.
    :ivar nudges: how often the driver was to be woken.
    :ivar requested: the user's target in pages.
    """

    def __init__(
        self,
        facts: GuestFacts,
        remedies: Remedies,
        patience: int,
        endian_safe: int | None,
    ) -> None:
        self.session = Session(facts)
        self.stage = self._slept = Stage.FILL
        self.mute: tuple[Defect, ...] = ()
        self.nudges = 0
        self.requested = 0
        self._remedies = remedies
        self._seconds = patience
        self._endian_safe = endian_safe
        self._goal = FIRST_TARGET
        self._patience = Patience(patience)
        self._ready = False
        self._turned = False

    def observe(self, event: Event) -> None:
        """Let one event rule out what it rules out, and go on from there."""
        handle = self.HANDLERS.get(type(event))
        if handle is not None:
            handle(self, event)
        self._advance()

    # --- snapshots ---

    def save(self) -> dict[str, Any]:
        """Return the session, and where in it the policy stands."""
        return {
            "session": saved.save(self.session),
            "stage": self.stage.value,
            "slept": self._slept.value,
            "goal": self._goal,
            "ready": self._ready,
            "turned": self._turned,
            "mute": [defect.name for defect in self.mute],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`save` returned.

        :raises ValueError: if it is damaged; this examination is of no use then.
        """
        try:
            self.session = saved.load(self.session.facts, state["session"])
            self.stage, self._slept = Stage(state["stage"]), Stage(state["slept"])
            self.mute = tuple(Defect[name] for name in state["mute"])
            self._goal = state["goal"]
            self._ready, self._turned = bool(state["ready"]), bool(state["turned"])
        except (KeyError, TypeError) as error:
            message = f"not a saved evidence policy: {error!r}"
            raise ValueError(message) from error
        if not is_whole(self._goal, 0, MOST):
            raise ValueError(f"{self._goal!r} is no target to have shown a driver")
        # This host may know what rules out all that the other one had left.
        self._advance()

    # --- events ---

    def _describe(self, event: GuestDescribed) -> None:
        """Learn of the guest; as long as nothing was inflated, begin anew with that."""
        facts = event.facts
        before = self.session
        before.describe(facts)
        if before.fresh:
            session = self.session = Session(facts, places=before.places)
            session.reads, session.actual = before.reads, before.actual
            self._goal, self.mute = FIRST_TARGET, ()
            self._enter(Stage.FILL)
            if before.features is not None:
                session.accept(before.features)
        elif self.stage is Stage.HELD and not is_hopeless(self.session.alive):
            # What could not be told apart may be now.
            self._resume()
        self._look_for_proof()

    def _look_for_proof(self) -> None:
        """Believe at once what needs no probe."""
        proof = proofs.find(self.session, self._endian_safe)
        if proof is not None and self.stage in WAITING:
            self.session.trust(proofs.proven(self.session.alive))
            self.session.note(proof.seen, proof.shows)
            self._enter(Stage.GOOD)

    def _get_ready(self, _event: DriverReady) -> None:
        self._ready = True
        self.nudges += not self.session.reads

    def _accept(self, event: FeaturesAcked) -> None:
        self.session.accept(event.features)
        self._look_for_proof()

    def _place(self, event: QueueSeen) -> None:
        self.session.place(event.index, event.desc)

    def _read(self, event: TargetRead) -> None:
        self.session.read(event.num_pages)
        if self.stage is Stage.HELD:
            self._patience.moved()

    def _inflate(self, event: PagesInflated) -> None:
        if not event.pfns:
            return
        session, before = self.session, self.session.alive
        if not session.reads:
            session.read(self.advertised())
        if not before and self._asked():
            # An unknown driver, which goes on: it reads that in the other byte order.
            self._turned = not self._turned
        session.inflate(event.pfns)
        self._moved()
        if len(session.alive) < len(before):
            if self.stage is Stage.HELD:
                self._resume()
            self._tell()

    def _deflate(self, event: PagesDeflated) -> None:
        if event.pfns:
            self.session.deflate(event.pfns)
            self._moved()

    def _request(self, _event: TargetRequested) -> None:
        """Expect the driver to move, whatever it did of its own accord."""
        self._patience.moved()
        self.session.yielded = False

    def _moved(self) -> None:
        """Take note that pages went in or out: whoever was silent is not any more."""
        self._patience.moved()
        if self.stage is Stage.SILENT:
            self.session.note("pages moved", "The driver acts after all.")
            self._enter(self._slept)
        if Defect.NO_DEFLATE in self.mute:
            self.session.note("pages moved", "The driver acts after all.")
            self.mute = _without(self.mute, Defect.NO_DEFLATE)
            self._resume()

    def _write(self, event: ActualWritten) -> None:
        self.session.write(event.actual)
        lead, mute = self.session.lead, self.mute
        if Defect.NO_ACTUAL in mute and lead and self.session.agrees(lead):
            self.session.note(
                f"actual = {event.actual}", "The driver writes it after all."
            )
            self.mute = _without(mute, Defect.NO_ACTUAL)

    def _resume(self) -> None:
        """See on from where the driver stands, without a page more."""
        lead = self.session.lead
        if lead is not None:
            self._goal = lead.units(self.session.entries)
            self._enter(Stage.FILL)

    # --- stages ---

    def _advance(self) -> None:
        """Go on to the next stage if this one has shown what it can."""
        lead = self.session.lead
        if lead is None or is_hopeless(self.session.alive):
            if self.stage is not Stage.HELD:
                self._enter(Stage.HELD)
            return
        if self.stage is Stage.GOOD and lead.defects:
            self._resume()  # believed too early
        if self.stage is Stage.WORKING and not lead.defects and not self.mute:
            self._enter(Stage.GOOD)
        if self.stage in PROBING:
            self._goal = max(self._goal, self._floor(lead))
            if self._stands(lead):
                (self._filled if self.stage is Stage.FILL else self._shrunk)(lead)

    def _floor(self, lead: DriverKind) -> int:
        """Return the least goal that does not ask for a deflation in FILL."""
        return lead.units(self.session.entries) if self.stage is Stage.FILL else 0

    def _stands(self, lead: DriverKind) -> bool:
        """Return whether the driver reached the goal and says so in ``actual``."""
        silent = not self._writes_actual() or not lead.writes_actual
        return self._reached(lead) and (silent or self.session.agrees(lead))

    def _reached(self, lead: DriverKind) -> bool:
        return lead.units(self.session.entries) == lead.rests_at(self._goal)

    def _can_shrink(self, lead: DriverKind) -> bool:
        """Return whether a smaller target does no harm, and there is one."""
        frees_wrong = any(kind.frees_wrong for kind in self.session.alive)
        return not frees_wrong and lead.units(self.session.entries) > self._least()

    def _least(self) -> int:
        """Return the smallest balloon that all kinds left can have."""
        return max(kind.least for kind in self.session.alive)

    def _filled(self, lead: DriverKind) -> None:
        """Shrink if that does no harm; if it might, see whether more pages tell."""
        units, least = lead.units(self.session.entries), self._least()
        wider = units * WIDER if units > least else 2 * least
        scale = max(kind.scale for kind in self.session.alive)
        if self._can_shrink(lead):
            self._goal = least
            self._enter(Stage.SHRINK)
        elif units <= least or wider * scale <= WIDEST:
            self._goal = wider
            self._patience.moved()
        else:
            self.session.note(
                f"{units} units taken",
                "A page-size bug still explains it; to shrink might do harm.",
            )
            self._enter(Stage.HELD)

    def _shrunk(self, lead: DriverKind) -> None:
        """Conclude: only a driver that reads this target and deflates stands here."""
        session, shown = self.session, lead.shown(self._goal)
        session.keep(
            lambda kind: (
                kind.deflates
                and (
                    kind is lead or kind.units(session.entries) == kind.stops_at(shown)
                )
            ),
            lambda: f"stands at {self._goal} after a larger target",
        )
        remedies = {
            (*remedy(kind), kind.swaps_actual and self._writes_actual())
            for kind in session.alive
        }
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
        if not lead.defects and not self.mute:
            return Stage.GOOD
        return Stage.WORKING if self._usable(lead) else Stage.HELD

    def _usable(self, lead: DriverKind) -> bool:
        """Return whether all remedies that it takes are switched on."""
        lacking = self._remedies.lacking(lead)
        for option in lacking:
            self.session.note(f"{option}=no", "Its balloon could work, but for that.")
        return not lacking

    def _writes_actual(self) -> bool:
        return Defect.NO_ACTUAL not in self.mute

    def _enter(self, stage: Stage) -> None:
        self.stage = stage
        self._patience.moved()
        self.session.yielded = False  # what it gave back, it was asked for
        self._tell()

    def _tell(self) -> None:
        """Keep as evidence what is done about the driver from now on."""
        lead = self.session.lead
        if self.stage is Stage.HELD:
            self.session.note(*self._remedies.holding())
        elif self.stage in OPEN and lead is not None:
            for event, shows in self._remedies.acts(lead):
                self.session.note(event, shows)

    # --- time ---

    def _pass_time(self, event: TimePassed) -> None:
        """Wake a driver that stands still, and let its silence count in the end."""
        lead = self.session.lead
        if lead is None:
            return
        if self.stage is Stage.HELD:
            if self._patience.tested(event.now) is Silence.OVER:
                self._rest()
            return
        silence = Silence.WAIT
        if self.stage in PROBING and self._present():
            silence = self._patience.tested(event.now)
        elif self.stage is Stage.SILENT or (
            self.stage in OPEN and self._is_short(lead)
        ):
            silence = self._patience.left_alone(event.now)
        self.nudges += silence is Silence.NUDGE
        if silence is Silence.OVER:
            self._expire(lead)

    def _rest(self) -> None:
        """Conclude from a held driver at rest: what it has is what it reads.

        Old drivers that want more and find no memory read their target five times a
        second.
        """
        shown, session = self.advertised(), self.session
        if self._remedies.hold and shown in session.reads:
            session.keep(
                lambda kind: kind.reads(shown) == kind.units(session.entries),
                lambda: f"{self._seconds} s at rest with a target of {shown}",
            )

    def _is_short(self, lead: DriverKind) -> bool:
        """Return whether the driver has less than the user wants, and not by its will.

        One that found no memory when it was told of its target may not try again by
        itself; one that gave pages back of its own accord (OOM) is left in peace.
        """
        session = self.session
        return not session.yielded and lead.units(session.entries) < lead.rests_at(
            self.wanted(lead)
        )

    def _present(self) -> bool:
        """Return whether there is a driver: to read a target it takes none."""
        session = self.session
        return self._ready or session.features is not None or not session.fresh

    def _expire(self, lead: DriverKind) -> None:
        """Conclude from silence."""
        after = f"{self._seconds} s of silence"
        if self._reached(lead) and not self.session.agrees(lead):
            never = self.session.actual is None
            shows = "never writes actual" if never else "does not write its size"
            self.session.note(after, f"The driver {shows}.")
            self._conclude_no_actual(after)
            self._patience.moved()
        elif self.stage is Stage.SHRINK and self._asked():
            self.session.note(after, "The driver does not deflate.")
            self.mute += (Defect.NO_DEFLATE,)
            self._enter(Stage.HELD)
        elif self.stage is Stage.FILL and self._can_shrink(lead):
            self.session.note(after, "No more memory: go on with what there is.")
            self._goal = lead.units(self.session.entries)
            self._patience.moved()
        else:
            knows = "has" if self._asked() else "did not ask for"
            self.session.note(
                after, f"The driver {knows} its target, and does not act."
            )
            self._slept = self.stage
            self._enter(Stage.SILENT)

    def _conclude_no_actual(self, after: str) -> None:
        """Go on with the kinds that are known for it, if any is left."""
        if all(kind.writes_actual for kind in self.session.alive):
            self.mute += (Defect.NO_ACTUAL,)
        else:
            self.session.keep(lambda kind: not kind.writes_actual, lambda: after)

    def _asked(self) -> bool:
        """Return whether the driver read what it is shown."""
        return self.advertised() in self.session.reads

    # --- what the driver is shown ---

    def advertised(self) -> int:
        """Return the target to show: a probe's, the user's, or the size held."""
        lead = self.session.lead
        if self.stage in WAITING:
            return self._shown(self._goal)
        if self.stage in OPEN and lead is not None:
            return self._shown(self.wanted(lead))
        return self._held() if self._remedies.hold else 0

    def wanted(self, lead: DriverKind) -> int:
        """Return the user's target in the driver's units."""
        ram_pages = self.session.facts.ram_pages
        return self._remedies.units(lead, self.requested, ram_pages)

    def _shown(self, units: int) -> int:
        lead, units = self.session.lead, min(units, MOST)
        return lead.shown(units, lead.units(self.session.entries)) if lead else units

    def _held(self) -> int:
        """Return what the driver reads as the size that it has."""
        session = self.session
        kind = session.lead or session.last
        units = session.size
        shown = kind.shown(units, units) if kind else units
        return swap32(shown) if self._turned else shown

    HANDLERS: ClassVar[dict[type[Event], Callable[[Examination, Any], None]]] = {
        GuestDescribed: _describe,
        FeaturesAcked: _accept,
        DriverReady: _get_ready,
        QueueSeen: _place,
        TargetRead: _read,
        PagesInflated: _inflate,
        PagesDeflated: _deflate,
        ActualWritten: _write,
        TargetRequested: _request,
        TimePassed: _pass_time,
    }
    """What each event does."""


def _named(kind: DriverKind) -> str:
    return f"{kind.name} ({kind.page * 4} KiB pages)"


def _without(defects: tuple[Defect, ...], gone: Defect) -> tuple[Defect, ...]:
    return tuple(defect for defect in defects if defect is not gone)
