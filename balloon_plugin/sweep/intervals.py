"""Estimates with their intervals. What is difficult about them is SciPy's.

All intervals are of 95 %, each for itself. Sums are of whole numbers, so that the order
in which runs were done leaves no trace in the last digit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from balloon_plugin.errors import HostError

__all__ = ["Estimate", "difference_of_shares", "mean", "share"]

LEVEL: Final = 0.95
"""How often an interval made in this way holds the true value."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, and how far it can be trusted.

    :ivar value: the figure that was found.
    :ivar low: the lower end of its interval.
    :ivar high: the upper end.
    """

    value: float
    low: float
    high: float

    @property
    def is_zero(self) -> bool:
        """Whether the true value may well be 0."""
        return self.low <= 0 <= self.high


def _stats() -> Any:
    try:
        from scipy import stats  # noqa: PLC0415 - a second, and in an extra
    except ImportError as error:
        raise HostError(
            "a sweep needs SciPy: pip install 'balloon-plugin[sweep]'"
        ) from error
    return stats


def share(count: int, runs: int) -> Estimate:
    """Return which share of ``runs`` so many are, with Wilson's interval."""
    found = _stats().binomtest(count, runs).proportion_ci(LEVEL, method="wilson")
    return Estimate(count / runs, float(found.low), float(found.high))


def mean(total: int, squares: int, runs: int) -> Estimate:
    """Return the mean of amounts, with Student's interval.

    :param total: their sum.
    :param squares: the sum of their squares.
    :param runs: how many they are, 2 or more.
    """
    value = total / runs
    variance = (runs * squares - total * total) / (runs * (runs - 1))
    if variance == 0:
        return Estimate(value, value, value)
    error = math.sqrt(variance / runs)
    low, high = _stats().t.interval(LEVEL, runs - 1, loc=value, scale=error)
    return Estimate(value, float(low), float(high))


def difference_of_shares(both: int, first: int, second: int, runs: int) -> Estimate:
    """Return how much larger the first share is than the second, of the same guests.

    With Newcombe's interval for paired proportions: the distances of the two Wilson
    limits, squared and added, with their correlation (Statistics in Medicine 17, 1998,
    2635-2650, method 10). It is not empty where the two never differed.

    :param both: guests that count in both shares.
    :param first: those that count in the first alone.
    :param second: those that count in the second alone.
    :param runs: all guests.
    """
    one, other = share(both + first, runs), share(both + second, runs)
    correlation = _correlation(both, first, second, runs)
    value = (first - second) / runs
    return Estimate(
        value,
        value - _joined(one.value - one.low, other.high - other.value, correlation),
        value + _joined(one.high - one.value, other.value - other.low, correlation),
    )


def _joined(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))


def _correlation(both: int, first: int, second: int, runs: int) -> float:
    neither = runs - both - first - second
    agreement: float = both * neither - first * second
    if agreement > 0:
        # Corrected for continuity, towards no correlation.
        agreement = max(0.0, agreement - runs / 2)
    margins = (both + first) * (both + second) * (neither + first) * (neither + second)
    return agreement / math.sqrt(margins) if margins else 0.0
