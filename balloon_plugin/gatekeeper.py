"""Between the device and its policy: events go in, the gate that holds comes out.

Knows the policy, the observers and the user's target; knows no host, queue or memory.
Every event takes the same way: the observers see it, the policy sees it, the policy is
asked for its gate and verdict, and what changed by that is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from balloon_plugin.calls import ObserverCalls, PolicyCalls
from balloon_plugin.events import (
    Answer,
    DeviceReset,
    Event,
    Evidence,
    Gate,
    GateChanged,
    GuestDescribed,
    InhibitionChanged,
    Judgement,
    PolicyChanged,
    StateLoaded,
    TargetAnswered,
    TargetRead,
    TargetReply,
    TargetRequested,
    Translation,
    Verdict,
    VerdictChanged,
)

__all__ = ["Gatekeeper"]

_RESTORED = Verdict(Judgement.UNDECIDED, "RESTORED")

_NO_VERDICT = (
    "restored while the balloon was in use but without a verdict of this policy: it is "
    "held as it is until the driver is reset"
)

_NOT_SEEN = (
    "the policy {name} came while the balloon was in use, and has not seen how that "
    "came about: it is held as it is until the driver is reset"
)


@dataclass(frozen=True, slots=True)
class _Hold:
    """What holds instead of a policy that must not judge a balloon in use."""

    gate: Gate
    verdict: Verdict


class Gatekeeper:
    """The policy's gate over one device, and the user's target behind it.

    :param policy: the calls of the one policy.
    :param observers: the calls of all who listen.
    :param announce: called when the driver should read its target again.

    :ivar gate: what the device may do now.
    :ivar verdict: what the policy has concluded so far.
    :ivar accepted: whether a target was accepted in this session.
    :ivar inhibited: why nothing may be given back whatever the policy says, ``None`` if
        it may.
    """

    def __init__(
        self,
        policy: PolicyCalls,
        observers: ObserverCalls,
        announce: Callable[[], None],
    ) -> None:
        self._policy = policy
        self._observers = observers
        self._announce = announce
        self._held: _Hold | None = None
        self._blamed = False
        self.accepted = False
        self._wanted = 0
        self._most: int | None = None
        self.inhibited: str | None = None
        self._ceiling = 0
        self._read: int | None = 0
        self.gate = Gate(0, reclaim=False, targets=Answer.DEFERRED)
        self.verdict = Verdict(Judgement.UNDECIDED, "")

    @property
    def policy_name(self) -> str:
        """The policy with its options, as it was named."""
        return self._policy.name

    def features(self) -> int:
        """Return the feature bits that the policy wants offered."""
        return self._policy.features()

    def emit(self, event: Event) -> None:
        """Show an event to the observers alone."""
        self._observers.emit(event)

    def observe(self, event: Event) -> None:
        """Show an event to all, and let the gate follow.

        A policy that holds no verdict over a restored balloon must not make one of what
        was no test: it sees what the host knows, and the reset that begins a session.
        """
        self._observers.emit(event)
        if isinstance(event, TargetRead):
            self._read = event.num_pages
        if self._held is None or isinstance(event, GuestDescribed):
            self._policy.observe(event)
        self._settle()

    def reset(self) -> None:
        """Begin a new driver session: nothing learnt before counts (rule 4)."""
        self._held = None
        self._ceiling = self._read = 0
        self._policy.reopen()
        self._blamed = self.accepted = False
        self.observe(DeviceReset())

    def set_target(self, num_pages: int, remark: str) -> TargetReply:
        """Take the user's target, if the gate lets it in.

        :param num_pages: already clamped.
        :param remark: what else to say of it.
        """
        reply = self._ask(num_pages, remark)
        self._observers.emit(TargetAnswered(reply, num_pages))
        if reply.answer is Answer.ACCEPTED:
            # Also for the target that it has already: a driver that overslept it wakes.
            self._announce()
        return reply

    def _ask(self, num_pages: int, remark: str) -> TargetReply:
        """Ask the policy; a target that it refuses on seeing it changes nothing."""
        before, was = self._wanted, self.gate.targets
        if was is not Answer.REFUSED:
            self.requested = num_pages
            self.observe(TargetRequested(self._visible))
        answer, reason = self.gate.targets, self.gate.reason
        if answer is Answer.ACCEPTED and self._visible < self.requested:
            answer = Answer.DEFERRED
            reason = f"discards are inhibited: {self.inhibited}"
        if answer is Answer.ACCEPTED:
            reason = remark
        elif answer is Answer.DEFERRED:
            reason = "; ".join(filter(None, (reason, remark)))
        elif was is Answer.ACCEPTED:
            self.requested = before
            self._settle()
        return TargetReply(answer, reason, self.requested)

    @property
    def requested(self) -> int:
        """The user's target in pages, clamped to what RAM is known now.

        Front ends tell of memory piece by piece, so the target itself is kept.
        """
        return self._wanted if self._most is None else min(self._wanted, self._most)

    @requested.setter
    def requested(self, num_pages: int) -> None:
        self._wanted = num_pages

    @property
    def may_reclaim(self) -> bool:
        """Whether pages may be given back to the host now."""
        return self.gate.reclaim and self.inhibited is None

    @property
    def _visible(self) -> int:
        """The target that the policy is shown: no growth while discards are inhibited.

        The guest would lose pages then, and nobody would have them.
        """
        if self.inhibited is None:
            return self.requested
        return min(self.requested, self._ceiling)

    def inhibit(self, reason: str | None, ballooned: int) -> None:
        """Forbid to give pages back, or (``None``) allow it; the target is kept.

        :param ballooned: pages in the balloon, which is not to grow meanwhile.
        """
        waiting = self._visible < self.requested
        self._ceiling = ballooned
        changed, self.inhibited = self.inhibited != reason, reason
        if changed:
            self._observers.emit(InhibitionChanged(reason))
        if reason is None and waiting:
            self.set_target(self._wanted, "")
        else:
            self._settle()

    def shrunk(self, ballooned: int) -> None:
        """Learn that so many pages are in the balloon; it is not to grow from there."""
        self._ceiling = min(self._ceiling, ballooned)

    def clamp(self, most: int | None) -> None:
        """Show no target above the guest's RAM, of which this is known now."""
        self._most = most

    def save(self) -> dict[str, Any]:
        """Return the part of a snapshot that is the policy's and the user's."""
        return {
            "requested": self.requested,
            "accepted": self.accepted,
            "policy": self._policy.name,
            "policy_state": None if self._held else self._policy.save(),
            "advertised": self.gate.num_pages,
            "read": self._read,
            "translation": asdict(self.gate.translation),
        }

    def load(self, state: dict[str, Any], ballooned: int) -> bool:
        """Take over what :meth:`save` returned.

        Without a verdict a balloon in use is held: one with pages, or whose driver may
        be on its way to the target that it read last.

        :param ballooned: pages in the restored balloon.
        :returns: whether the policy begins anew, and has to be told of the driver.
        """
        self.requested = state["requested"]
        self._ceiling = ballooned
        saved = state["policy_state"]
        known = (
            state["policy"] == self._policy.name
            and saved is not None
            and self._policy.load(saved)
        )
        self.accepted = state["accepted"]
        self._read = state["read"]
        anew = not (known or ballooned or self._read)
        if not (known or anew):
            # What it was shown last is the one number that asks nothing new of a driver
            # of which nobody knows how it reads its target.
            gate = Gate(
                ballooned if state["advertised"] is None else state["advertised"],
                reclaim=False,
                targets=Answer.REFUSED,
                reason=_NO_VERDICT,
                translation=Translation(**state["translation"]),
            )
            self._held = _Hold(gate, _RESTORED)
        self._observers.emit(StateLoaded(known, ballooned, dict(state)))
        self._settle()
        return anew

    def change_policy(self, name: str, known: Iterable[Event], *, empty: bool) -> None:
        """Let another policy judge from now on, which has taken the old one's place.

        It is shown what is still true. Where the balloon rests it then judges as it
        would a new driver. Elsewhere a test of its own would mistake what the driver
        does for another target: unless it has a verdict already, the balloon is held as
        after a restore without one (rule 4).

        :param known: what there is to know of the guest and its driver.
        :param empty: whether the balloon is; it rests if its driver read no target but
            0 last.
        """
        self._held = None
        self._policy.succeed(name)
        self._blamed = False
        for event in known:
            self._policy.observe(event)
        if self._read:
            self._policy.observe(TargetRead(self._read))
        if self.requested:
            self._policy.observe(TargetRequested(self._visible))
        if empty and self._read == 0:
            self.accepted = False
        elif self._is_blind():
            self._held = self._hold(name)
        held = self._held is not None
        self._observers.emit(PolicyChanged(name, held, self._policy.features()))
        self._settle()

    def _is_blind(self) -> bool:
        """Return whether the policy cannot judge a balloon that is in use."""
        verdict = self._policy.verdict()
        gate = self._policy.gate(self._visible)
        return (
            self._policy.failure is not None
            or verdict.judgement is Judgement.UNDECIDED
            # Pages that are recorded would be others by its numbers.
            or gate.translation != self.gate.translation
        )

    def _hold(self, name: str) -> _Hold:
        """Return the gate as the driver knows it, but shut."""
        reason = _NOT_SEEN.format(name=name)
        gate = replace(self.gate, reclaim=False, targets=Answer.REFUSED, reason=reason)
        evidence = Evidence("policy changed", f"{reason[0].upper()}{reason[1:]}.")
        return _Hold(gate, Verdict(Judgement.UNDECIDED, "NOT_SEEN", (), (evidence,)))

    def _settle(self) -> None:
        """Ask the policy for its gate and verdict, and tell what changed."""
        # The gate last: a policy that fails on its verdict must find it shut.
        verdict = self._held.verdict if self._held else self._policy.verdict()
        gate = self._held.gate if self._held else self._policy.gate(self._visible)
        self._tell_failure()
        if _conclusion(verdict) != _conclusion(self.verdict):
            self._observers.emit(VerdictChanged(verdict))
        self.verdict = verdict
        before, self.gate = self.gate, gate
        self.accepted |= gate.targets is Answer.ACCEPTED
        if gate == before:
            return
        self._observers.emit(GateChanged(gate))
        if _power(gate) != _power(before):
            self._announce()
        if gate.targets is Answer.REFUSED and before.targets is Answer.DEFERRED:
            self._forget_target()

    def _forget_target(self) -> None:
        """Say that a target which was waiting for the verdict will not be honoured."""
        if self.requested:
            self.requested = 0
            reply = TargetReply(Answer.REFUSED, self.gate.reason, 0)
            self._observers.emit(TargetAnswered(reply))
            self._settle()

    def _tell_failure(self) -> None:
        failure = self._policy.failure
        if failure is not None and not self._blamed:
            self._blamed = True
            self._observers.emit(failure)


def _conclusion(verdict: Verdict) -> tuple[object, ...]:
    return verdict.judgement, verdict.state, verdict.defects


def _power(gate: Gate) -> tuple[object, ...]:
    """Return the parts of a gate whose change is announced by a config interrupt.

    The RFC announces every change of state, also one that leaves the target as it was.
    """
    return gate.num_pages, gate.reclaim, gate.targets, gate.nudges
