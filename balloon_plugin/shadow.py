"""A shadow: a policy that follows a guest over which it has no power.

It sees what the guest does under another policy, the live one, and holds a gate and a
verdict of its own. Where its gate differs from the live one, that is a *divergence*:
there it would have acted otherwise.

What it concludes after that is still a fact as long as it only looks on: a policy that
shows the user's target, or 0, waits for what the driver does by itself. One that tests
drivers with targets of its own needs the driver to see them. If the driver is shown
another number instead, what follows is a *guess*, up to the next reset. So it is when
it was not offered the features that the shadow wanted.

While discards are inhibited, what a policy is asked for depends on the balloon, too, of
which events do not tell; gates are compared again afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, get_args

from balloon_plugin.events import (
    ActualWritten,
    DeviceReset,
    Event,
    FeaturesAcked,
    Gate,
    GateChanged,
    GuestDescribed,
    InhibitionChanged,
    PagesDeflated,
    PagesInflated,
    PluginFailed,
    PolicyChanged,
    PolicyEvent,
    ShadowDiverged,
    ShadowGuesses,
    StateLoaded,
    TargetAnswered,
    TargetRead,
    TargetRequested,
    Verdict,
)
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.manager import make_gatekeeper

__all__ = ["Shadow", "ShadowStatus", "is_policy_event"]

_POLICY_EVENTS: Final = get_args(PolicyEvent)
_LOOKS: Final = (TargetRead, ActualWritten, PagesInflated, PagesDeflated)
"""Signs that the driver knows a target, so that it would be told of another."""


def is_policy_event(entry: object) -> bool:
    """Return whether this is an event that policies observe, and so is counted."""
    return isinstance(entry, _POLICY_EVENTS)


@dataclass(frozen=True, slots=True)
class ShadowStatus:
    """What is known of one shadow at a moment.

    Events are counted from 1, those alone that policies observe.

    :ivar policy: the policy with its options.
    :ivar events: how many it has seen.
    :ivar verdict: what it has concluded in this driver session.
    :ivar gate: what it would allow.
    :ivar divergences: how often it began to differ from the live policy, or to differ
        otherwise, in all sessions.
    :ivar diverged: the first of them in this session, ``None`` as long as they agree.
    :ivar guesses: from which event on its conclusions are guesses in this session, and
        why; ``None`` as long as they are facts.
    :ivar dropped: why it looks on no more, or an empty text.
    """

    policy: str
    events: int
    verdict: Verdict
    gate: Gate
    divergences: int = 0
    diverged: ShadowDiverged | None = None
    guesses: ShadowGuesses | None = None
    dropped: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as a flat record, for JSON and tables."""
        verdict, diverged, guesses = self.verdict, self.diverged, self.guesses
        return {
            "policy": self.policy,
            "events": self.events,
            "verdict": verdict.judgement.value,
            "state": verdict.state,
            "defects": [defect.name for defect in verdict.defects],
            "evidence": [asdict(item) for item in verdict.evidence],
            "divergences": self.divergences,
            "diverges_from": diverged.at if diverged else None,
            "guesses_from": guesses.at if guesses else None,
            "guesses_why": guesses.why if guesses else "",
            "dropped": self.dropped,
        }


class Shadow:
    """One policy that looks on; an observer, or to be shown a recording.

    It runs where it is called, so that one which hangs hangs its caller. Beside a live
    guest it belongs into :func:`balloon_plugin.watch.watching`.

    :param policy: a policy's name with options, or an object.
    :param offered: returns the feature bits that the live policy offered.
    :param tell: is told of divergences, guesses and failures.
    :raises PluginError: if the policy cannot be made.
    """

    def __init__(
        self,
        policy: str | object,
        *,
        offered: Callable[[], int] = int,
        tell: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        self._keeper = make_gatekeeper(policy, observers=[_Ear(self._heard)])
        self._offered = offered
        self._tell = tell
        self._live = self._keeper.gate
        self._events = 0
        self._divergences = 0
        self._asked = False
        self._unsettled = False
        self.inhibited = False
        """Whether discards are: then gates follow a balloon that no shadow knows."""
        self._forget_session()

    def _forget_session(self) -> None:
        self._looked = self._active = False
        self._aspects: tuple[bool, ...] = ()
        self._diverged: ShadowDiverged | None = None
        self._guesses: ShadowGuesses | None = None

    @property
    def policy(self) -> str:
        """The policy with its options."""
        return self._keeper.policy_name

    def status(self) -> ShadowStatus:
        """Return what is known now; of the last event only after :meth:`settle`."""
        return ShadowStatus(
            policy=self.policy,
            events=self._events,
            verdict=self._keeper.verdict,
            gate=self._keeper.gate,
            divergences=self._divergences,
            diverged=self._diverged,
            guesses=self._guesses,
        )

    @hookimpl
    def balloon_event(self, event: Event) -> None:
        """See what happened under the live policy."""
        match event:
            case GateChanged(gate=gate):
                self._live = gate
            case PolicyChanged(offers=offers):
                self._offered = lambda: offers
            case InhibitionChanged(reason=reason):
                self.settle()
                # What is still to be compared happened while they were.
                self._unsettled = False
                self.inhibited = reason is not None
            case TargetAnswered(asked=asked) if asked is not None:
                # One that was refused at once came without its TargetRequested.
                if not self._asked:
                    self.settle()
                    self._keeper.set_target(asked, "")
                    self._unsettled = True
                self._asked = False
            case StateLoaded(ballooned=ballooned, state=state) if state:
                self.settle()
                self._keeper.load(state, ballooned)
                self._unsettled = True
            case StateLoaded():
                self._guess("what was loaded is not told")
            case _ if isinstance(event, _POLICY_EVENTS):
                self.settle()
                self._events += 1
                self._observe(event)
                self._unsettled = True

    def _observe(self, event: PolicyEvent) -> None:
        keeper = self._keeper
        match event:
            case GuestDescribed(facts=facts):
                keeper.clamp(facts.ram_pages or None)
                keeper.observe(event)
            case TargetRequested(num_pages=num_pages):
                self._asked = True
                keeper.set_target(num_pages, "")
            case DeviceReset():
                self._forget_session()
                keeper.reset()
            case FeaturesAcked(features=features):
                self._compare_offers(features)
                keeper.observe(event)
            case _:
                self._looked |= isinstance(event, _LOOKS)
                keeper.observe(event)

    def settle(self) -> None:
        """Compare the gates after the last event: what followed from it is known.

        The next event does so by itself; call this where there is none to come.
        """
        if not self._unsettled or self.inhibited:
            return
        self._unsettled = False
        own, live = self._keeper.gate, self._live
        self._active |= self._looked and own.num_pages not in (
            0,
            self._keeper.requested,
        )
        if self._guesses is None:
            self._note_divergence(own, live)
        if self._active and own.num_pages != live.num_pages:
            self._guess(
                f"the driver is shown {live.num_pages}, and never sees the "
                f"{own.num_pages} of this policy"
            )

    def _note_divergence(self, own: Gate, live: Gate) -> None:
        before, self._aspects = self._aspects, _differing(own, live)
        if not any(self._aspects) or self._aspects == before:
            return
        event = ShadowDiverged(self.policy, self._events, own, live)
        self._divergences += 1
        self._diverged = self._diverged or event
        self._tell(event)

    def _compare_offers(self, accepted: int) -> None:
        """Guess if the driver knows of other offers than this policy's."""
        own, live = self._keeper.features(), self._offered()
        if missing := own & ~live:
            self._guess(f"the driver was never offered the features {missing:#x}")
        elif surplus := accepted & live & ~own:
            self._guess(f"the driver accepted {surplus:#x}, not of this policy's offer")

    def _guess(self, why: str) -> None:
        if self._guesses is None:
            self._guesses = ShadowGuesses(self.policy, self._events, why)
            self._tell(self._guesses)

    def _heard(self, event: Event) -> None:
        """Pass on that the policy failed: it is shut until the next reset, as live."""
        if isinstance(event, PluginFailed):
            name = f"shadow {event.plugin}"
            self._tell(PluginFailed(name, event.hook, event.error))


class _Ear:
    """Hears what a gatekeeper tells."""

    def __init__(self, hear: Callable[[Event], None]) -> None:
        self._hear = hear

    @hookimpl
    def balloon_event(self, event: Event) -> None:
        self._hear(event)


def _differing(own: Gate, live: Gate) -> tuple[bool, ...]:
    """Return in which of its powers a gate differs; reasons are words."""
    return (
        own.num_pages != live.num_pages,
        own.reclaim != live.reclaim,
        own.targets != live.targets,
        own.translation != live.translation,
    )
