"""What changed between two values that JSON can carry, as a value that JSON can carry.

A session is saved at every batch, and little of it changes. A change is what turns the
old value into the new one: ``[new]`` in place of it, or, for two objects, another
object with a change for each key that differs and ``null`` for one that is gone.

Parts that are the same object in both are equal, and are not looked into.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

__all__ = ["Change", "apply", "difference"]

Change: TypeAlias = list[Any] | dict[str, Any]
"""A new value in a list of one, or changes by key."""

_MISSING: Final = object()


def difference(old: object, new: object) -> Change | None:
    """Return what turns ``old`` into ``new``, or ``None`` if they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        return _between(old, new) or None
    return None if old == new else [new]


def apply(change: object, old: object) -> object:
    """Return what a change turns ``old`` into, which itself stays as it was.

    :raises ValueError: if it is no change, or none of this value.
    """
    match change:
        case [new]:
            return new
        case dict() if isinstance(old, dict):
            return _applied(change, old)
    message = "a change is not of the value before it"
    raise ValueError(message)


def _between(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = dict.fromkeys(old.keys() - new.keys())
    for key, value in new.items():
        before = old.get(key, _MISSING)
        if before is value:
            continue
        change = [value] if before is _MISSING else difference(before, value)
        if change is not None:
            changes[key] = change
    return changes


def _applied(changes: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    new = dict(old)
    for key, change in changes.items():
        if change is None:
            new.pop(key, None)
        else:
            new[key] = apply(change, old.get(key))
    return new
