"""What a sweep found, in tables and sentences. Draws nothing."""

from __future__ import annotations

from collections.abc import Iterator

from balloon_plugin.sweep import figures
from balloon_plugin.sweep.decision import Decision, Outsider, Part, Step, Tipping
from balloon_plugin.sweep.measures import HARMED, MEASURES, RIGHT, UNUSABLE
from balloon_plugin.sweep.result import Difference, Result

__all__ = ["advice", "legend", "rates_table", "reasons"]


def rates_table(result: Result) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: measures down, policies across, intervals below."""
    rows = []
    for measure in MEASURES:
        rates = [result.rate(policy, measure) for policy in result.policies]
        values = (
            figures.figure(rate.estimate.value, measure, result.runs) for rate in rates
        )
        rows.append([measure.name, *values])
        ends = (figures.between(rate.estimate, measure, result.runs) for rate in rates)
        rows.append(["", *ends])
    return ["", *result.policies], rows


def legend() -> Iterator[str]:
    """Yield a line that says what each measure is."""
    for measure in MEASURES:
        yield f"{measure.name}: {measure.about}"
    amounts = [f"{each.name} in {each.unit}" for each in MEASURES if not each.is_share]
    yield f"{', '.join(amounts)}, for each guest; the others in per cent of the guests"
    yield "below each its interval of 95 %, each for itself"


def advice(result: Result, decision: Decision) -> list[str]:
    """Return what to do, in a sentence for each choice."""
    first = decision.choices[0]
    if len(result.policies) == 1:
        return [f"Only `{first}` was run: there is nothing to choose."]
    if not decision.steps:
        why = "no other policy harms fewer guests or leaves fewer balloons unusable"
        return [f"Choose `{first}`: {why}."]
    told = [f"Choose `{first}`, unless one harmed guest is worth more to you than"]
    for step in decision.steps:
        told[-1] += f" {_bound(step)} unusable balloons."
        told.append(f"Then choose `{step.policy}`, unless it is worth more than")
    told[-1] = told[-1].partition(",")[0] + "."
    return told


def _bound(step: Step) -> str:
    ends = (step.price.value, step.price.low, step.price.high)
    value, low, high = map(figures.price, ends)
    return f"{value} ({low} to {high})"


def reasons(result: Result, decision: Decision) -> Iterator[str]:
    """Yield why, and what would change it, in sentences."""
    for policy in decision.choices:
        yield _did(result, policy)
    for step in decision.steps:
        pair = step.harmed, step.unusable
        yield f"`{step.policy}` {_compared(result, step.before, pair)}"
        yield " ".join(_parts(step))
    for outsider in decision.outsiders:
        pair = outsider.harmed, outsider.unusable
        compared = _compared(result, outsider.instead, pair)
        change = _change(result, outsider)
        yield f"`{outsider.policy}` is out at any price: it {compared} {change}"


def _did(result: Result, policy: str) -> str:
    right, harmed, unusable = (
        figures.percent(result.rate(policy, measure).estimate, result.runs)
        for measure in (RIGHT, HARMED, UNUSABLE)
    )
    return (
        f"`{policy}` was right about {right} of the guests, harmed {harmed}, and left "
        f"the balloon of {unusable} unusable."
    )


def _compared(result: Result, other: str, pair: tuple[Difference, Difference]) -> str:
    harmed, unusable = (_more(result, difference) for difference in pair)
    return (
        f"harms {harmed} guests than `{other}`, and leaves {unusable} balloons "
        "unusable."
    )


def _more(result: Result, difference: Difference) -> str:
    estimate = difference.estimate
    told = figures.points(estimate, result.runs)
    if not estimate.value:
        return f"{told} more or fewer"
    unsure = ", which may be chance," if estimate.is_zero else ""
    return f"{told}{unsure} {'fewer' if estimate.value < 0 else 'more'}"


def _parts(step: Step) -> Iterator[str]:
    """Yield on which classes a step hangs, those of most weight."""
    saved = sum(part.harmed for part in step.parts)
    cost = sum(part.unusable for part in step.parts)
    by_harm = max(step.parts, key=lambda part: part.harmed)
    by_cost = max(step.parts, key=lambda part: part.unusable)
    yield (
        f"Of the guests that it saves, {by_harm.harmed / saved:.0%} are of the class "
        f"{by_harm.kind.name}; {_without(by_harm)}."
    )
    if cost > 0:
        yield (
            f"Of the balloons that it costs, {by_cost.unusable / cost:.0%} are of the "
            f"class {by_cost.kind.name}; {_without(by_cost)}."
        )


def _without(part: Part) -> str:
    if part.price is None:
        return "without that class it would save nobody"
    return f"without that class the price would be {figures.price(part.price)}"


def _change(result: Result, outsider: Outsider) -> str:
    """Return what would have to be for an outsider to be better."""
    wishes = ("harm fewer guests", "leave fewer balloons unusable")
    told = [
        f"It would {wish} if {_tipping(result, tipping)}."
        for wish, tipping in zip(wishes, outsider.tippings, strict=True)
        if tipping
    ]
    return " ".join(told) or "There is no class of guests in which it does better."


def _tipping(result: Result, tipping: Tipping) -> str:
    now = tipping.kind.draws / result.runs
    return (
        f"more than {tipping.share:.1%} of the fleet were of the class "
        f"{tipping.kind.name} (now {now:.1%})"
    )
