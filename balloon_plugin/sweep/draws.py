"""Which guests in which circumstances, and how often: the same for the same seed.

Every respect in which guests differ has dice of its own, which are thrown once
for each guest. So the first thousand of ten thousand draws are those of a sweep of a
thousand, and whoever changes one table of a population changes no other draw.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from balloon_plugin.compare.cases import Case
from balloon_plugin.sweep.population import Class, Population, together

__all__ = ["Lot", "draw"]


@dataclass(frozen=True, slots=True)
class Lot:
    """Guests that were drawn alike.

    Everything about them is the same, and a run depends on nothing else; so one run
    stands for all of them.

    :ivar kind: the name of their class.
    :ivar case: the guest and its circumstance.
    :ivar count: how many were drawn, 1 or more.
    """

    kind: str
    case: Case
    count: int


def draw(population: Population, runs: int, seed: int) -> tuple[Lot, ...]:
    """Draw guests; return them in the order in which each was first drawn.

    :param runs: how many guests.
    :param seed: of the dice: any number.
    """
    lots: Counter[tuple[str, Case]] = Counter()
    for (at, *picks), count in Counter(_draws(population, runs, seed)).items():
        lots[_drawn(population.classes[at], picks)] += count
    return tuple(Lot(kind, case, count) for (kind, case), count in lots.items())


def _draws(population: Population, runs: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Yield the number of a class, and which case of each of its choices."""
    classes = population.classes
    pick_class = _picker([kind.weight for kind in classes])
    pickers = [[_picker(each.weights) for each in kind.choices] for kind in classes]
    class_dice = _dice(seed, "class")
    dice = [_dice(seed, f"choice {each.name}") for each in classes[0].choices]
    for _ in range(runs):
        at = pick_class(class_dice())
        thrown = [each() for each in dice]
        yield (at, *[pick(one) for pick, one in zip(pickers[at], thrown, strict=True)])


def _drawn(kind: Class, picks: Sequence[int]) -> tuple[str, Case]:
    names = [
        choice.circumstances[pick]
        for choice, pick in zip(kind.choices, picks, strict=True)
    ]
    return kind.name, Case(kind.guest, together(names))


def _dice(seed: int, name: str) -> Callable[[], float]:
    # random() alone gives the same numbers in every version of Python.
    return Random(f"{seed} {name}").random  # noqa: S311 - a simulation's dice


def _picker(weights: Sequence[float]) -> Callable[[float], int]:
    """Return what turns a number from 0 to below 1 into an index, by weights."""
    sums = list(accumulate(weights))
    # Rounded up, a number just below 1 would be behind the last.
    total, last = sums[-1], len(sums) - 1
    return lambda number: bisect(sums, number * total, 0, last)
