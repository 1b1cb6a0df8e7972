"""What came of a sweep: rates, differences, and records for whoever wants to look."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from balloon_plugin.compare import Row
from balloon_plugin.sweep.draws import Lot
from balloon_plugin.sweep.intervals import (
    Estimate,
    difference_of_shares,
    mean,
    share,
)
from balloon_plugin.sweep.measures import MEASURES, Measure
from balloon_plugin.sweep.population import Population

__all__ = ["Difference", "Kind", "Outcome", "Rate", "Result"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of guests that were drawn alike.

    :ivar lot: which, and how many.
    :ivar rows: what each of them did, under each policy.
    """

    lot: Lot
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Rate:
    """How one policy did by one measure.

    :ivar policy: the policy with its options.
    :ivar measure: which.
    :ivar total: how many guests, or the sum of amounts.
    :ivar estimate: that as a share of all guests, or for each guest.
    """

    policy: str
    measure: Measure
    total: int
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much one policy's rate is higher than another's, on the same guests.

    :ivar policy: the one.
    :ivar against: the other.
    :ivar measure: of what.
    :ivar estimate: the difference.
    """

    policy: str
    against: str
    measure: Measure
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Kind:
    """How the guests of one class did.

    :ivar name: of the class.
    :ivar draws: how many were drawn.
    :ivar totals: by policy and measure, how many guests or the sum of amounts.
    """

    name: str
    draws: int
    totals: Mapping[tuple[str, Measure], int]


@dataclass(frozen=True)
class Result:
    """What came of a sweep.

    :ivar population: what was drawn from.
    :ivar runs: how many guests were drawn.
    :ivar seed: of the dice.
    :ivar policies: what each of them was put under.
    :ivar outcomes: what became of them.
    """

    population: Population
    runs: int
    seed: int
    policies: tuple[str, ...]
    outcomes: tuple[Outcome, ...]

    @functools.cached_property
    def rates(self) -> tuple[Rate, ...]:
        """Every measure of every policy."""
        return tuple(
            self._rate(at, measure)
            for at, measure in itertools.product(range(len(self.policies)), MEASURES)
        )

    def rate(self, policy: str, measure: Measure) -> Rate:
        """Return one measure of one policy."""
        return next(
            rate
            for rate in self.rates
            if rate.policy == policy and rate.measure is measure
        )

    @functools.cached_property
    def differences(self) -> tuple[Difference, ...]:
        """Every measure of every pair of policies."""
        return tuple(
            self.difference(*pair, measure)
            for pair in itertools.combinations(self.policies, 2)
            for measure in MEASURES
        )

    def difference(self, policy: str, against: str, measure: Measure) -> Difference:
        """Return by how much a policy's rate is higher than that of another."""
        pairs = list(self._pairs(policy, against, measure))
        if measure.is_share:
            both = sum(n for one, other, n in pairs if one and other)
            first = sum(n for one, other, n in pairs if one and not other)
            second = sum(n for one, other, n in pairs if other and not one)
            estimate = difference_of_shares(both, first, second, self.runs)
        else:
            total = sum((one - other) * n for one, other, n in pairs)
            squares = sum((one - other) ** 2 * n for one, other, n in pairs)
            estimate = mean(total, squares, self.runs)
        return Difference(policy, against, measure, estimate)

    @functools.cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """Each class of guests of which some were drawn, as the population has them."""
        by_name: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            by_name.setdefault(outcome.lot.kind, []).append(outcome)
        names = (kind.name for kind in self.population.classes)
        return tuple(
            self._kind(name, by_name[name]) for name in names if name in by_name
        )

    def _kind(self, name: str, outcomes: Sequence[Outcome]) -> Kind:
        totals = {
            (policy, measure): sum(
                measure.of(outcome.rows[at]) * outcome.lot.count for outcome in outcomes
            )
            for at, policy in enumerate(self.policies)
            for measure in MEASURES
        }
        return Kind(name, sum(outcome.lot.count for outcome in outcomes), totals)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield a flat record for each policy of all guests that were drawn alike.

        ``draws`` says of how many guests it tells. Values are texts, numbers and truth
        values, and lists of texts, as pandas and polars take them.
        """
        for outcome in self.outcomes:
            for row in outcome.rows:
                lot = {"class": outcome.lot.kind, "draws": outcome.lot.count}
                yield lot | row.as_dict()

    def _rate(self, at: int, measure: Measure) -> Rate:
        amounts = [(measure.of(one.rows[at]), one.lot.count) for one in self.outcomes]
        total = sum(amount * count for amount, count in amounts)
        squares = sum(amount * amount * count for amount, count in amounts)
        if measure.is_share:
            estimate = share(total, self.runs)
        else:
            found = mean(total, squares, self.runs)
            # No amount is below nothing, though Student does not know that.
            estimate = replace(found, low=max(0.0, found.low))
        return Rate(self.policies[at], measure, total, estimate)

    def _pairs(
        self, policy: str, against: str, measure: Measure
    ) -> Iterator[tuple[int, int, int]]:
        """Yield what is measured under both policies, and for how many guests."""
        one, other = map(self.policies.index, (policy, against))
        for outcome in self.outcomes:
            rows = outcome.rows
            yield measure.of(rows[one]), measure.of(rows[other]), outcome.lot.count
