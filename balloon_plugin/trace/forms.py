"""How the values of events look in a trace: JSON, both ways, and checked on the way in.

Knows JSON values and no events. A :class:`Form` is a pair of functions; forms of parts
make the form of a whole. Whatever is read may be damaged, so that every form says in a
``ValueError`` what it did not find.
"""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import groupby
from operator import sub
from typing import Any, Final

__all__ = [
    "FLAG",
    "MAX_NUMBERS",
    "NUMBERS",
    "SECONDS",
    "TEXT",
    "U32",
    "U64",
    "Form",
    "many",
    "member",
    "optional",
    "pair",
    "record",
]


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of value.

    :ivar put: makes a JSON value of it.
    :ivar take: makes it of a JSON value, or raises ``ValueError``.
    """

    put: Callable[[Any], Any]
    take: Callable[[Any], Any]


def _as_it_is(value: Any) -> Any:
    return value


# --- plain values -------------------------------------------------------------------


def _whole(limit: int) -> Form:
    def take(value: Any) -> int:
        if type(value) is int and 0 <= value < limit:
            return value
        raise ValueError(f"{value!r} where a number from 0 to {limit - 1} belongs")

    return Form(_as_it_is, take)


def _plain(kind: type, name: str) -> Form:
    def take(value: Any) -> Any:
        if type(value) is kind:
            return value
        raise ValueError(f"{value!r} where {name} belongs")

    return Form(_as_it_is, take)


def _take_seconds(value: Any) -> float:
    with contextlib.suppress(OverflowError):  # a whole number has any size
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    raise ValueError(f"{value!r} where seconds belong")


U32: Final = _whole(1 << 32)
"""A whole number of 32 bits."""

U64: Final = _whole(1 << 64)
"""A whole number of 64 bits."""

FLAG: Final = _plain(bool, "true or false")
"""True or false."""

TEXT: Final = _plain(str, "a text")
"""A text."""

SECONDS: Final = Form(_as_it_is, _take_seconds)
"""A time or a duration, in seconds."""


# --- made of others -----------------------------------------------------------------


def optional(form: Form) -> Form:
    """Return the form of a value that may be ``None``."""
    return Form(
        lambda value: None if value is None else form.put(value),
        lambda value: None if value is None else form.take(value),
    )


def member(kind: type[enum.Enum]) -> Form:
    """Return the form of one of a closed choice: its name."""

    def take(value: Any) -> enum.Enum:
        if type(value) is str and value in kind.__members__:
            return kind[value]
        raise ValueError(
            f"{value!r} where one of {', '.join(kind.__members__)} belongs"
        )

    return Form(lambda value: value.name, take)


def many(form: Form) -> Form:
    """Return the form of a tuple of such values."""
    return Form(
        lambda values: [form.put(value) for value in values],
        lambda values: tuple(map(form.take, _list(values))),
    )


def pair(first: Form, second: Form) -> Form:
    """Return the form of a tuple of two."""

    def take(value: Any) -> tuple[Any, Any]:
        if len(_list(value)) != 2:  # noqa: PLR2004 - that is what a pair is
            raise ValueError(f"{value!r} where a pair belongs")
        return first.take(value[0]), second.take(value[1])

    return Form(lambda value: [first.put(value[0]), second.put(value[1])], take)


def record(kind: type, *forms: Form) -> Form:
    """Return the form of a dataclass: a list of its fields, in order.

    A list that ends early was written before the last fields came; they are as they
    are by default.
    """
    names = [item.name for item in fields(kind)]
    table = list(zip(names, forms, strict=True))

    def put(value: Any) -> list[Any]:
        return [form.put(getattr(value, name)) for name, form in table]

    def take(value: Any) -> Any:
        if len(_list(value)) > len(forms):
            raise ValueError(f"{len(value)} values where {len(forms)} belong")
        parts = [form.take(part) for form, part in zip(forms, value, strict=False)]
        try:
            return kind(*parts)
        except TypeError as error:
            raise ValueError(f"{len(parts)} values are too few") from error

    return Form(put, take)


def _list(value: Any) -> list[Any]:
    if type(value) is list:
        return value
    raise ValueError(f"{value!r} where a list belongs")


# --- page numbers -------------------------------------------------------------------

MAX_NUMBERS: Final = 16384
"""Entries of one buffer: the device reads no more (64 KiB of 4 bytes each).

Without it a damaged line could ask for more memory than there is.
"""

_SHORTEST: Final = 2
"""Steps from which a run is worth being written as one."""


def _put_numbers(numbers: tuple[int, ...]) -> list[int | list[int]]:
    """Write numbers exactly: their order and their duplicates are evidence.

    A number is a number; a list ``[step, times]`` says that the number before it is
    followed by so many others, each greater by ``step`` than the one before.
    """
    if not numbers:
        return []
    first, count = numbers[0], len(numbers)
    # Most buffers are one run up: to see that takes a tenth of looking for others.
    if count > _SHORTEST and numbers == tuple(range(first, first + count)):
        return [first, [1, count - 1]]
    written: list[int | list[int]] = [first]
    at = 0
    for step, same in groupby(map(sub, numbers[1:], numbers)):
        times = len(list(same))
        if times < _SHORTEST:
            written.append(numbers[at + 1])
        else:
            written.append([step, times])
        at += times
    return written


def _take_numbers(value: Any) -> tuple[int, ...]:
    numbers: list[int] = []
    for item in _list(value):
        if type(item) is int:
            numbers.append(item)
        else:
            numbers += _run(item, numbers, MAX_NUMBERS - len(numbers))
    if len(numbers) > MAX_NUMBERS:
        raise ValueError(f"more than {MAX_NUMBERS} page numbers in a buffer")
    if numbers and not 0 <= min(numbers) <= max(numbers) < 1 << 32:
        raise ValueError("a page number that does not fit into 32 bits")
    return tuple(numbers)


def _run(item: Any, numbers: list[int], room: int) -> list[int]:
    match item:
        case [int(step), int(times)] if numbers and 0 < times <= room:
            last = numbers[-1]
            return [last + step * (i + 1) for i in range(times)]
    raise ValueError(f"{item!r} where a page number or [step, times] belongs")


NUMBERS: Final = Form(_put_numbers, _take_numbers)
"""The entries of a buffer."""
