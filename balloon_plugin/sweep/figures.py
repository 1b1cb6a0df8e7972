"""Figures of a sweep as people read them: no more digits than the draws can tell."""

from __future__ import annotations

import math

from balloon_plugin.sweep.intervals import Estimate
from balloon_plugin.sweep.measures import Measure

__all__ = ["amount", "between", "figure", "percent", "points", "price"]


def figure(value: float, measure: Measure, runs: int) -> str:
    """Return a rate as a percentage or an amount, without its unit."""
    if measure.is_share:
        return f"{100 * value:.{_decimals(runs)}f}"
    return amount(value)


def between(estimate: Estimate, measure: Measure, runs: int) -> str:
    """Return the interval of a rate: ``94.48 to 95.34``."""
    low, high = (figure(end, measure, runs) for end in (estimate.low, estimate.high))
    return f"{low} to {high}"


def percent(estimate: Estimate, runs: int) -> str:
    """Return a share with its interval: ``94.93 % (94.48 to 95.34)``."""
    value, low, high = _hundredths(estimate, runs)
    return f"{value} % ({low} to {high})"


def points(estimate: Estimate, runs: int) -> str:
    """Return the size of a difference of shares: ``0.39 points (0.28 to 0.53)``."""
    if estimate.value < 0:
        estimate = Estimate(-estimate.value, -estimate.high, -estimate.low)
    value, low, high = _hundredths(estimate, runs)
    return f"{value} points ({low} to {high})"


def price(value: float) -> str:
    """Return a price: two digits that count are enough to decide by."""
    if math.isinf(value):
        return "any number"
    return amount(value) if value >= 10 else f"{value:.2g}"  # noqa: PLR2004


def amount(value: float) -> str:
    """Return an amount, as a whole number unless it is small."""
    if value == 0 or abs(value) >= 10:  # noqa: PLR2004 - two digits that count
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.2g}"


def _hundredths(estimate: Estimate, runs: int) -> tuple[str, str, str]:
    places = _decimals(runs)
    value, low, high = (
        f"{100 * each:.{places}f}"
        for each in (estimate.value, estimate.low, estimate.high)
    )
    return value, low, high


def _decimals(runs: int) -> int:
    """Return how many decimals of a percentage so many runs can tell apart."""
    return max(1, len(str(runs)) - 3)
