"""The policy itself: its options and its hooks around the examination of a driver."""

from __future__ import annotations

from typing import Any, Final

from balloon_plugin.events import (
    Answer,
    DeviceReset,
    Event,
    Gate,
    GuestDescribed,
    GuestFacts,
    Translation,
    Verdict,
)
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.policies.evidence.examination import Examination
from balloon_plugin.policies.evidence.remedies import Remedies, translation
from balloon_plugin.policies.evidence.stages import (
    OPEN,
    WAITING,
    defects,
    judgement,
    mean_the_same,
    reason,
)
from balloon_plugin.policies.options import flag, integer

__all__ = ["EvidencePolicy"]

_FREE_BITS: Final = (6, 23)
"""Feature bits of a balloon that the specification has not given away (§5.5.3)."""


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
        self._remedies = Remedies(
            hold=flag("hold", hold),
            swap=flag("swap", swap),
            translate=flag("translate", translate),
            align=flag("align", align),
        )
        self._patience = integer("patience", patience, 1, 3600)
        self._endian_safe = (
            None
            if endian_safe is None
            else integer("endian_safe", endian_safe, *_FREE_BITS)
        )
        self._facts = GuestFacts(ram=())
        self._exam = self._begin()

    def _begin(self) -> Examination:
        """Return the examination of a driver of which nothing is known (rule 4)."""
        return Examination(
            self._facts, self._remedies, self._patience, self._endian_safe
        )

    @hookimpl
    def policy_features(self) -> int:
        """Offer the bit by which a driver says that it is right, if that is wanted."""
        return 0 if self._endian_safe is None else 1 << self._endian_safe

    @hookimpl
    def policy_observe(self, event: Event) -> None:
        """Show the event to the examination, or begin another one."""
        if isinstance(event, GuestDescribed):
            self._facts = event.facts
        if isinstance(event, DeviceReset):
            self._exam = self._begin()
        self._exam.observe(event)

    @hookimpl
    def policy_gate(self, requested: int) -> Gate:
        """Return the gate of the stage."""
        exam = self._exam
        exam.requested = requested
        if exam.stage not in OPEN:
            found = defects(exam.session.alive, exam.mute)
            waits = exam.stage in WAITING
            return Gate(
                exam.advertised(),
                reclaim=False,
                targets=Answer.DEFERRED if waits else Answer.REFUSED,
                reason=reason(exam.stage, found),
                nudges=exam.nudges,
            )
        lead = exam.session.lead
        return Gate(
            exam.advertised(),
            # While nothing is in the balloon, there is nothing to mistake.
            reclaim=not exam.session.entries or mean_the_same(exam.session.alive),
            targets=Answer.ACCEPTED,
            translation=Translation() if lead is None else translation(lead),
            nudges=exam.nudges,
            entries=exam.session.count,
        )

    @hookimpl
    def policy_verdict(self) -> Verdict:
        """Return what is concluded: a defect counts once every kind left has it."""
        stage, session = self._exam.stage, self._exam.session
        return Verdict(
            judgement(stage, session.alive),
            stage.value,
            defects(session.alive, self._exam.mute),
            tuple(session.evidence),
        )

    @hookimpl
    def policy_save(self) -> dict[str, Any]:
        """Return the examination as it stands."""
        return self._exam.save()

    @hookimpl
    def policy_load(self, state: dict[str, Any]) -> None:
        """Take over a saved examination.

        :raises ValueError: if it is damaged.
        """
        exam = self._begin()
        exam.load(state)
        self._exam = exam
