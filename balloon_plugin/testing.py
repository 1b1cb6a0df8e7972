"""A kit for those who write policies, to see that theirs keep the contract.

It needs no test framework; call it from whichever you use. What a policy concludes is
its own affair, and is seen by running it against guests with
``balloon_plugin.compare.run``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pluggy

from balloon_plugin import hookspecs
from balloon_plugin.calls import PolicyCalls
from balloon_plugin.events import (
    ActualWritten,
    ByteOrder,
    DeviceReset,
    DriverReady,
    Event,
    FeaturesAcked,
    Gate,
    GuestDescribed,
    GuestFacts,
    MemoryRange,
    PagesDeflated,
    PagesInflated,
    QueueSeen,
    StatsReceived,
    TargetRead,
    TargetRequested,
    TimePassed,
    Verdict,
)

__all__ = ["ContractError", "check_policy", "sessions"]

MOST_EVIDENCE: Final = 100
"""Entries of evidence from which a policy plainly does not keep it short."""

_FACTS = GuestDescribed(GuestFacts((MemoryRange(0, 1 << 26),)))


class ContractError(AssertionError):
    """A policy breaks its contract; the message says where and how."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event of a kind that the policy cannot know yet."""


def check_policy(make_policy: Callable[[], object], seed: int = 0) -> None:
    """Check that a policy keeps the contract of :mod:`balloon_plugin.hookspecs`.

    Shows it driver sessions, sensible and senseless, and asks for its gate and verdict
    after each event. Checked is that it never raises, answers with sound values, keeps
    its evidence short, ignores unknown events, begins anew after a reset, and, if it
    implements ``policy_save``, goes on as before when it was saved and loaded through
    JSON.

    :param make_policy: makes a fresh policy; the factory of the entry point.
    :param seed: of the senseless sessions.
    :raises ContractError: at the first breach.
    """
    for number, session in enumerate(sessions(seed)):
        calls = _calls(make_policy())
        for event in session:
            _show(calls, event, f"session {number}")
        if _can_be_saved(make_policy()):
            _check_saving(make_policy, session, f"session {number}")
        _check_reset(make_policy, session, f"session {number}")


def sessions(seed: int = 0) -> Iterator[tuple[Any, ...]]:
    """Yield driver sessions as tuples of events; the first are sensible."""
    good = (
        *(_FACTS, FeaturesAcked(1 << 28), TargetRead(16), DriverReady()),
        *(QueueSeen(0, 0x3C1000), QueueSeen(1, 0x3C4000)),
        PagesInflated(tuple(range(1000, 1016))),
        *(ActualWritten(16), TargetRead(0), PagesDeflated(tuple(range(1000, 1016)))),
        *(ActualWritten(0), TargetRequested(100), TimePassed(1.0), StatsReceived(())),
    )
    yield good
    yield (Unknown(), *good, Unknown())
    yield (_FACTS, *(TimePassed(float(now)) for now in range(100)))
    chance = random.Random(seed)  # noqa: S311 - a test is not to be a surprise
    for _ in range(20):
        yield (_FACTS, *(_random_event(chance) for _ in range(200)))


def _random_event(chance: random.Random) -> Event:
    pages = [chance.randrange(1 << chance.choice((5, 14, 32))) for _ in range(40)]
    number = pages[0]
    kinds: tuple[Event, ...] = (
        GuestDescribed(
            GuestFacts(
                (MemoryRange(chance.choice((0, 1 << 30)), 1 << 26),),
                chance.choice((None, *ByteOrder)),
                chance.choice((None, 4096, 65536)),
            )
        ),
        FeaturesAcked(chance.getrandbits(40)),
        DriverReady(),
        QueueSeen(number % 4, pages[-1] << 12),
        TargetRead(number),
        ActualWritten(number),
        PagesInflated(tuple(pages[: chance.randrange(1, 40)])),
        PagesDeflated(tuple(sorted(pages))),
        StatsReceived(((chance.randrange(20), number),)),
        TargetRequested(number % 16384),
        TimePassed(chance.random() * 100),
        DeviceReset(),
    )
    return chance.choice(kinds)


def _calls(policy: object) -> PolicyCalls:
    return PolicyCalls(_plugins(policy), "policy")


def _plugins(policy: object) -> pluggy.PluginManager:
    plugins = pluggy.PluginManager(hookspecs.PROJECT)
    plugins.add_hookspecs(hookspecs)
    plugins.register(policy, name="policy")
    return plugins


def _can_be_saved(policy: object) -> bool:
    return bool(_plugins(policy).hook.policy_save.get_hookimpls())


def _show(calls: PolicyCalls, event: Any, where: str) -> tuple[Gate, Verdict]:
    """Show one event and check all answers."""
    calls.features()
    calls.observe(event)
    gate, verdict = calls.gate(100), calls.verdict()
    if calls.failure is not None:
        raise ContractError(
            f"{where}: at {event!r}, {calls.failure.hook}: {calls.failure.error}"
        )
    if len(verdict.evidence) > MOST_EVIDENCE:
        raise ContractError(f"{where}: {len(verdict.evidence)} pieces of evidence")
    return gate, verdict


def _check_saving(
    make_policy: Callable[[], object], session: tuple[Any, ...], where: str
) -> None:
    """Save in the middle of a session, and compare the rest of both.

    Time is left out: the clock of one host says nothing on another.
    """
    session = tuple(event for event in session if not isinstance(event, TimePassed))
    half = len(session) // 2
    saved, loaded = _calls(make_policy()), _calls(make_policy())
    for event in session[:half]:
        _show(saved, event, where)
    state = saved.save()
    if state is None:
        raise ContractError(f"{where}: policy_save returned no state")
    for event in session[:half]:
        if isinstance(event, GuestDescribed):
            _show(loaded, event, where)
    if not loaded.load(json.loads(json.dumps(state))):
        raise ContractError(f"{where}: policy_load refused what policy_save returned")
    for event in session[half:]:
        one, other = _show(saved, event, where), _show(loaded, event, where)
        if _seen(one) != _seen(other):
            raise ContractError(f"{where}: loaded, it differs at {event!r}")


def _check_reset(
    make_policy: Callable[[], object], session: tuple[Any, ...], where: str
) -> None:
    """Compare a policy after a reset with a new one that knows the same guest."""
    calls, fresh = _calls(make_policy()), _calls(make_policy())
    for event in session:
        _show(calls, event, where)
        if isinstance(event, GuestDescribed):
            _show(fresh, event, where)
    old = _show(calls, DeviceReset(), where)
    new = _show(fresh, DeviceReset(), where)
    if _seen(old) != _seen(new):
        raise ContractError(f"{where}: it remembers something after a reset")


def _seen(answer: tuple[Gate, Verdict]) -> tuple[object, ...]:
    """Return what of the answers must be alike (how often it nudged need not be)."""
    gate, verdict = answer
    shown = (gate.num_pages, gate.reclaim, gate.targets, gate.reason, gate.translation)
    return (*shown, verdict)
