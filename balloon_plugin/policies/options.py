"""Checks of what a policy is given: its options, and its own state from a snapshot.

A policy is made with keyword arguments. ``--policy probe:pages=16`` hands them over as
text, a Python host as values. A factory passes either through these functions, and a
wrong option becomes one sentence that names it. Nothing here knows a policy.
"""

from __future__ import annotations

from typing import Final, TypeGuard

from balloon_plugin.errors import PluginError

__all__ = ["flag", "integer", "is_whole"]

_WORDS: Final = {
    "yes": True,
    "true": True,
    "on": True,
    "1": True,
    "no": False,
    "false": False,
    "off": False,
    "0": False,
}

_MAX_DIGITS: Final = 20
"""Digits of the longest option, those of 2**64; ``int`` itself raises at 4300."""


def integer(name: str, value: object, low: int, high: int) -> int:
    """Return the option ``name`` as a whole number from ``low`` to ``high``.

    :param name: the option's name, for the message.
    :param value: a number, or its decimal digits as text.
    :raises PluginError: if it is anything else or out of range.
    """
    number = _parsed(value) if isinstance(value, str) else value
    if is_whole(number, low, high):
        return number
    raise PluginError(
        f"the option {name} takes a whole number from {low} to {high}, not {value!r}"
    )


def flag(name: str, value: object) -> bool:
    """Return the option ``name`` as yes or no.

    :param name: the option's name, for the message.
    :param value: ``True`` or ``False``, or one of the words yes, true, on, 1, no,
        false, off and 0, in any case.
    :raises PluginError: if it is anything else.
    """
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else None
    if word not in _WORDS:
        raise PluginError(f"the option {name} takes yes or no, not {value!r}")
    return _WORDS[word]


def is_whole(value: object, low: int, high: int) -> TypeGuard[int]:
    """Say whether ``value`` is a whole number from ``low`` to ``high``.

    For ``policy_load``, where a damaged snapshot may hold anything. ``True`` is no
    number here, although Python takes it for 1.
    """
    return type(value) is int and low <= value <= high


def _parsed(text: str) -> int | None:
    digits = text.strip()
    # int() alone would also take "1_6", and the digits of any script.
    is_decimal = digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS
    return int(digits) if is_decimal else None
