"""Which policy to choose, how sure that is, and what would change it.

Two things count, and no figure makes one of the other: guests that a policy harms, and
balloons that it leaves unusable. So there is a *price*: how many unusable balloons one
harmed guest is worth to whoever decides. Each price has its best policy; one that is
best at no price is out. The weights of classes are the operator's as well, so it is
told what hangs on which class, and how its share would have to change.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from balloon_plugin.sweep.intervals import Estimate
from balloon_plugin.sweep.measures import HARMED, UNUSABLE, Measure
from balloon_plugin.sweep.result import Difference, Kind, Result

__all__ = ["Decision", "Outsider", "Part", "Step", "Tipping", "decide"]


@dataclass(frozen=True, slots=True)
class Part:
    """What one class has to do with a step.

    :ivar kind: the class.
    :ivar harmed: how many of its guests the step saves.
    :ivar unusable: how many of its balloons the step costs.
    :ivar price: the step's price in a fleet without this class; ``None`` if there it
        would save nobody.
    """

    kind: Kind
    harmed: int
    unusable: int
    price: float | None


@dataclass(frozen=True, slots=True)
class Step:
    """From one choice to the next, which harms fewer guests at a price.

    :ivar policy: the choice above the price.
    :ivar before: the choice below it.
    :ivar harmed: how many more guests are harmed (fewer, so below 0).
    :ivar unusable: how many more balloons are unusable.
    :ivar price: unusable balloons for each guest that is not harmed. Its interval is
        made of the ends of the other two, and rather too wide.
    :ivar parts: what each class has to do with it.
    """

    policy: str
    before: str
    harmed: Difference
    unusable: Difference
    price: Estimate
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Tipping:
    """A share of one class at which two policies would do alike.

    :ivar kind: the class; the others keep their shares among themselves.
    :ivar share: of the fleet, 0 to 1; beyond it the order is the other one.
    """

    kind: Kind
    share: float


@dataclass(frozen=True, slots=True)
class Outsider:
    """A policy that is the best at no price.

    :ivar policy: the policy with its options.
    :ivar instead: a choice that is better.
    :ivar harmed: how many more guests it harms.
    :ivar unusable: how many more balloons are unusable.
    :ivar tippings: for each of the two, the class that would change it soonest, if any
        does.
    """

    policy: str
    instead: str
    harmed: Difference
    unusable: Difference
    tippings: tuple[Tipping | None, Tipping | None]


@dataclass(frozen=True, slots=True)
class Decision:
    """Which policy to choose.

    :ivar choices: the best at some price, by rising price.
    :ivar steps: from each to the next, one fewer.
    :ivar outsiders: the others, in the order in which they were given.
    """

    choices: tuple[str, ...]
    steps: tuple[Step, ...]
    outsiders: tuple[Outsider, ...]


def decide(result: Result) -> Decision:
    """Return what the result of a sweep says to do."""
    choices = _choices(result)
    return Decision(
        tuple(choices),
        tuple(
            _step(result, policy, before)
            for before, policy in itertools.pairwise(choices)
        ),
        tuple(
            _outsider(result, policy, choices)
            for policy in result.policies
            if policy not in choices
        ),
    )


def _choices(result: Result) -> list[str]:
    """Return those on the lower left hull of harmed guests and unusable balloons."""
    harmed = {each: result.rate(each, HARMED).total for each in result.policies}
    unusable = {each: result.rate(each, UNUSABLE).total for each in result.policies}
    found = [min(result.policies, key=lambda each: (unusable[each], harmed[each]))]

    def price(each: str) -> tuple[float, int]:
        last = found[-1]
        saved = harmed[last] - harmed[each]
        return (unusable[each] - unusable[last]) / saved, harmed[each]

    while safer := [one for one in result.policies if harmed[one] < harmed[found[-1]]]:
        found.append(min(safer, key=price))
    return found


def _step(result: Result, policy: str, before: str) -> Step:
    harmed = result.difference(policy, before, HARMED)
    unusable = result.difference(policy, before, UNUSABLE)
    parts = tuple(
        Part(
            kind,
            -_surplus(kind, policy, before, HARMED),
            _surplus(kind, policy, before, UNUSABLE),
            _price_without(result, kind, policy, before),
        )
        for kind in result.kinds
    )
    return Step(policy, before, harmed, unusable, _price(harmed, unusable), parts)


def _price(harmed: Difference, unusable: Difference) -> Estimate:
    saved, cost = harmed.estimate, unusable.estimate
    least, most = -saved.high, -saved.low
    return Estimate(
        cost.value / -saved.value,
        max(0.0, cost.low) / most,
        cost.high / least if least > 0 else math.inf,
    )


def _price_without(
    result: Result, kind: Kind, policy: str, before: str
) -> float | None:
    others = [each for each in result.kinds if each is not kind]
    saved = -sum(_surplus(each, policy, before, HARMED) for each in others)
    cost = sum(_surplus(each, policy, before, UNUSABLE) for each in others)
    return cost / saved if saved > 0 else None


def _surplus(kind: Kind, policy: str, against: str, measure: Measure) -> int:
    return kind.totals[policy, measure] - kind.totals[against, measure]


def _outsider(result: Result, policy: str, choices: list[str]) -> Outsider:
    def worse(choice: str) -> int:
        """Return how far off it is, from a choice that is the better in both."""
        return max(
            result.rate(choice, measure).total - result.rate(policy, measure).total
            for measure in (HARMED, UNUSABLE)
        )

    instead = min(choices, key=worse)
    return Outsider(
        policy,
        instead,
        result.difference(policy, instead, HARMED),
        result.difference(policy, instead, UNUSABLE),
        (
            _soonest(result, policy, instead, HARMED),
            _soonest(result, policy, instead, UNUSABLE),
        ),
    )


def _soonest(
    result: Result, policy: str, instead: str, measure: Measure
) -> Tipping | None:
    tippings = _tippings(result, policy, instead, measure)
    return min(tippings, key=lambda tipping: tipping.share, default=None)


def _tippings(
    result: Result, policy: str, instead: str, measure: Measure
) -> Iterator[Tipping]:
    """Yield the classes in which the worse policy is the better, and at what share."""
    surplus = {
        kind.name: _surplus(kind, policy, instead, measure) for kind in result.kinds
    }
    whole = sum(surplus.values())
    for kind in result.kinds:
        here = surplus[kind.name] / kind.draws
        if here < 0 < whole:
            rest = (whole - surplus[kind.name]) / (result.runs - kind.draws)
            yield Tipping(kind, rest / (rest - here))
