"""Figures of a sweep as people read them: no more digits than the draws can tell."""

from __future__ import annotations

import math
from typing import Final

from balloon_plugin.sweep.intervals import Estimate
from balloon_plugin.sweep.measures import Measure

__all__ = ["amount", "between", "figure", "percent", "points", "price"]

_NOTHING: Final = 1e-9
"""A percentage that is 0, but for the last bit of a float."""


def figure(value: float, measure: Measure, runs: int) -> str:
    """Return a rate as a percentage or an amount, without its unit."""
    if measure.is_share:
        return _per_cent(value, runs)
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
    value, low, high = (
        _per_cent(each, runs) for each in (estimate.value, estimate.low, estimate.high)
    )
    return value, low, high


def _per_cent(value: float, runs: int) -> str:
    """Return a percentage with as many decimals as so many runs can tell apart.

    More, where fewer would turn a few into none, or nearly all into all.
    """
    exact = 100 * value
    decimals = max(1, len(str(runs)) - 4)
    while True:
        text = f"{exact:.{decimals}f}"
        if float(text) not in (0, 100) or exact in (0, 100) or abs(exact) < _NOTHING:
            return text.removeprefix("-") if not float(text) else text
        decimals += 1
