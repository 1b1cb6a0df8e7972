"""A result for machines: one document that JSON can carry."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from balloon_plugin.sweep.decision import Decision, Step
from balloon_plugin.sweep.intervals import Estimate
from balloon_plugin.sweep.result import Kind, Result

__all__ = ["as_document"]


def as_document(result: Result, decision: Decision) -> dict[str, Any]:
    """Return all of a result as a value that JSON can carry."""
    return {
        "population": asdict(result.population),
        "runs": result.runs,
        "seed": result.seed,
        "policies": list(result.policies),
        "decision": _decision(decision),
        "rates": [
            {
                "policy": rate.policy,
                "measure": rate.measure.name,
                "unit": rate.measure.unit or "share",
                "total": rate.total,
                **_estimate(rate.estimate),
            }
            for rate in result.rates
        ],
        "differences": [
            {
                "policy": one.policy,
                "against": one.against,
                "measure": one.measure.name,
                "unit": one.measure.unit or "share",
                **_estimate(one.estimate),
            }
            for one in result.differences
        ],
        "classes": [_kind(kind) for kind in result.kinds],
        "rows": list(result.records()),
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "choices": list(decision.choices),
        "prices": [_price(step) for step in decision.steps],
        "outsiders": [each.policy for each in decision.outsiders],
    }


def _price(step: Step) -> dict[str, Any]:
    return {
        "policy": step.policy,
        "instead_of": step.before,
        "unusable_for_one_harmed": _estimate(step.price),
    }


def _kind(kind: Kind) -> dict[str, Any]:
    return {
        "class": kind.name,
        "draws": kind.draws,
        "totals": [
            {"policy": policy, "measure": measure.name, "total": total}
            for (policy, measure), total in kind.totals.items()
        ],
    }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return {name: _figure(value) for name, value in asdict(estimate).items()}


def _figure(value: float) -> float | None:
    """Return nine digits that count: another SciPy may differ in the last ones."""
    return float(f"{value:.9g}") if math.isfinite(value) else None
