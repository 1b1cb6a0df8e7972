"""What a command is: its arguments, checked before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from balloon_plugin.control.errors import CommandError
from balloon_plugin.control.site import Site

__all__ = [
    "ANY",
    "TEXT",
    "TEXT_OR_NULL",
    "WHOLE_NUMBER",
    "Arguments",
    "Command",
    "Kind",
]

Arguments: TypeAlias = dict[str, Any]
"""Arguments of a command by their names."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What an argument must be.

    :ivar words: how to say it.
    :ivar types: the types of Python that JSON makes of it; none stands for any.
    """

    words: str
    types: tuple[type, ...] = ()

    def fits(self, value: object) -> bool:
        """Return whether a value is of this kind; true and false are no numbers."""
        return not self.types or type(value) in self.types


ANY: Final = Kind("a value")
"""Whatever JSON can carry."""

TEXT: Final = Kind("a text", (str,))
"""A string of JSON."""

TEXT_OR_NULL: Final = Kind("a text, or null", (str, type(None)))
"""A string that may be missing in so many words."""

WHOLE_NUMBER: Final = Kind("a whole number", (int,))
"""A number of JSON without fraction or exponent, however large."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    :ivar run: does it, where the devices live.
    :ivar takes: its arguments; each of them must be given.
    :ivar may_take: arguments that may be left out.
    """

    run: Callable[[Site, Arguments], Any]
    takes: Mapping[str, Kind] = field(default_factory=dict)
    may_take: Mapping[str, Kind] = field(default_factory=dict)

    def check(self, arguments: object) -> Arguments:
        """Return arguments that are as they should be.

        :raises CommandError: if one is missing, unknown or of another type.
        """
        if not isinstance(arguments, dict):
            raise CommandError("'arguments' must be an object")
        known = {**self.takes, **self.may_take}
        for name in arguments:
            if name not in known:
                raise CommandError(f"{name!r} is no argument of this command")
        for name, kind in known.items():
            if name in arguments and not kind.fits(arguments[name]):
                raise CommandError(f"{name!r} must be {kind.words}")
            if name in self.takes and name not in arguments:
                raise CommandError(f"{name!r} is missing: it is {kind.words}")
        return arguments
