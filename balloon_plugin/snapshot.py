"""The saved form of a driver session: a versioned value that JSON can carry.

Knows the form and nothing of what makes it. The form is documented here and in the
docs:

``version``
    1. A higher one is refused: an older device cannot know what it would lose.
``config``
    What the driver wrote to its configuration space, 32 hexadecimal digits, and
    ``actual``, ``poison_val``: its fields as they count, 0 to 2**32 - 1.
``features``
    Accepted bits, or null before the driver accepted any.
``ready``
    Whether the driver set DRIVER_OK.
``faults``, ``last_fault``
    How often the driver broke the specification, and the newest sentence of that.
``ledger``
    Pages in the balloon and those given back, see :class:`balloon_plugin.pages.Ledger`.
``policy``
    ``requested`` (the user's target in pages), ``accepted`` (whether one was accepted
    in this session), ``policy`` (its name with options) and ``policy_state`` (what
    ``policy_save`` returned, or null if there is no verdict).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeGuard

from balloon_plugin.errors import HostError

__all__ = ["VERSION", "pack", "unpack"]

VERSION: Final = 1
"""Written into every snapshot; grows when an older device would misread a newer one."""

_U32, _U64 = 1 << 32, 1 << 64
_SPACE = re.compile("[0-9a-f]{32}")


def pack(**parts: object) -> dict[str, Any]:
    """Return the parts of a session as a snapshot of this version."""
    return {"version": VERSION, **parts}


def unpack(state: object) -> dict[str, Any]:
    """Return the parts of a snapshot, checked.

    :raises HostError: if it is damaged or from a newer version.
    """
    whole = state if isinstance(state, dict) else {}
    version = whole.get("version")
    if _integer(version, _U32) and version > VERSION:
        message = (
            f"the saved state has version {version}, this is version {VERSION}: "
            "load it with a newer balloon_plugin"
        )
        raise HostError(message)
    wrong = [
        name
        for name, check in _CHECKS.items()
        if name not in whole or not check(whole[name])
    ]
    if wrong:
        message = f"the saved state is damaged ({', '.join(wrong)}): save it again"
        raise HostError(message)
    return {name: whole[name] for name in _CHECKS if name != "version"}


def _integer(value: object, limit: int) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < limit


def _policy_part(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _integer(value.get("requested"), _U32)
        and isinstance(value.get("accepted"), bool)
        and isinstance(value.get("policy"), str)
        and isinstance(value.get("policy_state", 0), dict | None)
    )


_CHECKS: Final[dict[str, Callable[[object], bool]]] = {
    "version": lambda value: _integer(value, _U32),
    "actual": lambda value: _integer(value, _U32),
    "poison_val": lambda value: _integer(value, _U32),
    "config": lambda value: isinstance(value, str) and bool(_SPACE.fullmatch(value)),
    "faults": lambda value: _integer(value, _U64),
    "last_fault": lambda value: isinstance(value, str),
    "features": lambda value: value is None or _integer(value, _U64),
    "ready": lambda value: isinstance(value, bool),
    "ledger": lambda value: isinstance(value, dict),
    "policy": _policy_part,
}
