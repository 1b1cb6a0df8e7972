"""A fleet, described: which guests there are in it, how many, and what befalls them.

A description is a TOML file; ``populations/ppc64-2012.toml`` beside this module is an
example with everything in it. Weights are relative, and its author's. Everything is
checked when it is read: what can be drawn can be run.
"""

from __future__ import annotations

import itertools
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from balloon_plugin.compare.circumstances import find as find_circumstance
from balloon_plugin.errors import HostError
from balloon_plugin.guests.profiles import find as find_guest

__all__ = [
    "DEFAULT",
    "Choice",
    "Class",
    "Population",
    "find",
    "populations",
    "read",
    "together",
]

_T = TypeVar("_T")

DEFAULT: Final = "ppc64-2012"
"""The population that is drawn from if none is named."""

_SHIPPED: Final = files("balloon_plugin.sweep") / "populations"
_USUAL: Final = "usual"

_HEAVIEST: Final = 1e100
"""The greatest weight, so that no sum of them is infinite."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One respect in which guests differ, and how often each case of it is met.

    :ivar name: of the respect (``memory``).
    :ivar circumstances: names of circumstances, one of which is drawn.
    :ivar weights: how often, relative to each other; 0 or more each.
    """

    name: str
    circumstances: tuple[str, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Class:
    """Guests of one kind.

    :ivar name: what its author calls them.
    :ivar guest: which simulated guest stands for them.
    :ivar weight: how many there are, relative to other classes.
    :ivar about: who they are, a sentence.
    :ivar choices: what befalls them, each drawn independently of the others; all
        classes of a population have the same ones, in the same order.
    """

    name: str
    guest: str
    weight: float
    about: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Population:
    """A fleet.

    :ivar name: the name of its file, without the suffix.
    :ivar title: what it is, in a few words.
    :ivar about: where its figures come from.
    :ivar classes: what it is made of.
    """

    name: str
    title: str
    about: str
    classes: tuple[Class, ...]


def populations() -> list[Population]:
    """Return those that come with this package."""
    paths = (Path(str(item)) for item in _SHIPPED.iterdir())
    return [read(path) for path in sorted(paths) if path.suffix == ".toml"]


def find(name: str | Path = DEFAULT) -> Population:
    """Return a population that comes with this package, or that a file describes.

    :param name: its name, or the path of a file that ends in ``.toml``.
    :raises HostError: if there is none, or if it says what cannot be.
    """
    path = Path(name)
    if path.suffix == ".toml":
        return read(path)
    known = {population.name: population for population in populations()}
    if str(name) in known:
        return known[str(name)]
    near = get_close_matches(str(name), known, 1)
    hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}."
    raise HostError(
        f"there is no population {str(name)!r}; {hint} A file of your own has a name "
        "that ends in .toml"
    )


def read(path: Path) -> Population:
    """Return what a file describes.

    :raises HostError: with the place in the file, if it cannot be read or used.
    """
    try:
        described = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # of bytes, TOML, or depth
        why = error.strerror if isinstance(error, OSError) else error
        raise HostError(f"the population {path} cannot be read: {why}") from error
    table = _Table(str(path), described)
    population = Population(
        name=path.stem,
        title=table.text("title", path.stem),
        about=table.text("about", ""),
        classes=_classes(table),
    )
    table.end()
    return population


# --- reading ------------------------------------------------------------------------


class _Table:
    """A table of the file, whose keys are taken out one by one.

    :param where: its place in the file, for people.
    :param values: what is in it.
    """

    def __init__(self, where: str, values: Mapping[str, Any]) -> None:
        self.where = where
        self._values = dict(values)

    def text(self, key: str, default: str | None = None) -> str:
        """Take a text; one without a default has to be there."""
        value = self._values.pop(key, default)
        if not isinstance(value, str):
            self.refuse(f"{key} has to be a text")
        return str(value)

    def weight(self, key: str) -> float:
        """Take a number of 0 or more."""
        value = self._values.pop(key, None)
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if value is None or not good or not 0 <= value <= _HEAVIEST:
            self.refuse(f"{key} has to be a number of 0 or more, up to {_HEAVIEST}")
        return float(value)

    def weights(self) -> dict[str, float]:
        """Take all that is left as weights, and return those of more than 0."""
        found = {key: self.weight(key) for key in list(self._values)}
        if not any(found.values()):
            self.refuse("one weight has to be more than 0")
        return {key: weight for key, weight in found.items() if weight}

    def tables(self, key: str) -> list[_Table]:
        """Take an array of tables."""
        values = self._values.pop(key, [])
        if not isinstance(values, list):
            self.refuse(f"write [[{key}]] for each")
        return [self._inner(f"{key} {at}", value) for at, value in enumerate(values, 1)]

    def table(self, key: str) -> _Table:
        """Take a table; one that is not there is empty."""
        return self._inner(key, self._values.pop(key, {}))

    def every_table(self) -> dict[str, _Table]:
        """Take all that is left as tables."""
        return {key: self.table(key) for key in list(self._values)}

    def end(self) -> None:
        """Refuse what nobody took: a misspelt key would be ignored in silence."""
        for key in self._values:
            self.refuse(f"nobody knows what {key} is")

    def refuse(self, why: str) -> NoReturn:
        """Raise what is wrong with this table."""
        raise HostError(f"{self.where}: {why}")

    def _inner(self, name: str, value: object) -> _Table:
        if not isinstance(value, dict):
            self.refuse(f"{name} has to be a table")
        return _Table(f"{self.where}, {name}", value)


def _classes(table: _Table) -> tuple[Class, ...]:
    everybody = _choices(table)
    classes = [_class(each, everybody) for each in table.tables("class")]
    if not any(each.weight for each in classes):
        table.refuse("give a [[class]] of guests with a weight of more than 0")
    counts = Counter(each.name for each in classes)
    for name, count in counts.items():
        if count > 1:
            table.refuse(f"{count} classes are called {name}: give each a name")
    names = dict.fromkeys(each.name for kind in classes for each in kind.choices)
    return tuple(replace(kind, choices=_filled(kind, names)) for kind in classes)


def _class(table: _Table, everybody: Mapping[str, Choice]) -> Class:
    guest = table.text("guest")
    found = Class(
        name=table.text("name", guest),
        guest=_known(table, find_guest, guest).name,
        weight=table.weight("weight"),
        about=table.text("about", ""),
        # What a class says of a respect replaces what the fleet says of it.
        choices=tuple({**everybody, **_choices(table)}.values()),
    )
    table.end()
    for pair in itertools.combinations(found.choices, 2):
        for names in itertools.product(*(each.circumstances for each in pair)):
            # Two that contradict each other would end a sweep in the middle.
            _known(table, find_circumstance, together(names))
    return found


def _choices(table: _Table) -> dict[str, Choice]:
    choices = {}
    for name, each in table.table("circumstances").every_table().items():
        weights = each.weights()
        for circumstance in weights:
            _known(each, find_circumstance, circumstance)
        choices[name] = Choice(name, tuple(weights), tuple(weights.values()))
    return choices


def _known(table: _Table, find_it: Callable[[str], _T], name: str) -> _T:
    try:
        return find_it(name)
    except HostError as error:
        table.refuse(str(error))


def _filled(kind: Class, names: Iterable[str]) -> tuple[Choice, ...]:
    """Return a class's choices with those that only other classes have."""
    own = {each.name: each for each in kind.choices}
    return tuple(own.get(name, Choice(name, (_USUAL,), (1.0,))) for name in names)


def together(names: Iterable[str]) -> str:
    """Return several circumstances as one; what is usual need not be said."""
    return "+".join(name for name in names if name != _USUAL) or _USUAL
