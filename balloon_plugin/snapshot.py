"""The saved form of a driver session: a versioned value that JSON can carry.

Knows the form and nothing of what makes it. The form is documented here and in the
docs:

``version``
    4. A higher one is refused: an older device cannot know what it would lose. The
    others are still read. Versions 1 to 3 had no ``target``, no ``advertised``, no
    ``read`` and no ``translation``, versions 1 and 2 another ``ledger``, and version 1
    neither ``offered`` nor ``stats`` nor ``hints``.
``config``
    What the driver wrote to its configuration space, 32 hexadecimal digits, and
    ``actual``, ``poison_val``: its fields as they count, 0 to 2**32 - 1.
``target``
    What it has read as ``num_pages``, the old bytes with the new of one half read.
``offered``
    The bits on offer when the driver accepted some of them, by which its queues are
    numbered, or null if nobody asked yet.
``features``
    Accepted bits, or null before the driver accepted any.
``ready``
    Whether the driver set DRIVER_OK.
``faults``, ``last_fault``
    How often the driver broke the specification, and the newest sentence of that.
``ledger``
    ``chunks``: by the number of a chunk (32,768 pages) and the number of a block in it
    (512 pages) a digit for each page, or one digit if it is the same for all: 0 for the
    driver's own pages, 1 for those in the balloon, 2 for those of them that were given
    back. Blocks of zeros, and chunks of such, are left out. Versions 1 and 2 had
    ``ballooned`` and ``reclaimed``, the pages in the balloon and those of them that
    were given back, as lists of ``[first page, count]``, sorted and disjoint.
``stats``
    ``interval`` (seconds between two requests, 0 for none), ``values`` (the newest
    statistics, ``[tag, value]`` each, or null), ``age`` (of those, in seconds),
    ``begun`` (whether a first buffer came), ``known`` (whether the buffer at the head
    of the queue is that of ``values``, and was kept to ask with).
``hints``
    ``last`` (the newest id that was ever used), ``command`` (what the driver reads),
    ``answer`` (what it last sent, or null), ``pages`` (hinted for that command).
``policy``
    ``requested`` (the user's target in pages), ``accepted`` (whether one was accepted
    in this session), ``advertised`` (what the driver reads as its target, or null if
    that was not saved), ``read`` (what it last read as its target, 0 for nothing, or
    null if that was not saved), ``translation`` (how its numbers were read for
    ``ledger``, by the fields of :class:`~balloon_plugin.events.Translation`),
    ``policy`` (its name with options) and ``policy_state`` (what ``policy_save``
    returned, or null if there is no verdict).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final, TypeGuard

from balloon_plugin.errors import HostError
from balloon_plugin.events import Translation
from balloon_plugin.layouts import DEVICE_FEATURES_MASK

__all__ = ["VERSION", "pack", "policy_part", "unpack"]

VERSION: Final = 4
"""Written into every snapshot; grows when an older device would misread a newer one."""

_U16, _U32, _U64 = 1 << 16, 1 << 32, 1 << 64
_SPACE = re.compile("[0-9a-f]{32}")


def pack(**parts: object) -> dict[str, Any]:
    """Return the parts of a session as a snapshot of this version."""
    return {"version": VERSION, **parts}


def unpack(state: object) -> dict[str, Any]:
    """Return the parts of a snapshot, checked.

    :raises HostError: if it is damaged or from a newer version.
    """
    whole = _grown_up(state) if isinstance(state, dict) else {}
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


def policy_part(value: object) -> dict[str, Any]:
    """Return the part of a snapshot that is the policy's and the user's, checked.

    :param value: as any version wrote it.
    :raises ValueError: if it is damaged.
    """
    part = {**_NOT_SHOWN, **value} if isinstance(value, dict) else {}
    if not _is_policy_part(part):
        message = "a state without what a policy and its user had"
        raise ValueError(message)
    return part


def _grown_up(state: dict[str, Any]) -> dict[str, Any]:
    """Return a snapshot of an older version as one of this.

    Version 1 is of devices that had two queues; the bits that were accepted are all
    that is known of those on offer.
    """
    version, policy = state.get("version"), state.get("policy")
    if type(version) is not int or version >= VERSION:
        return state
    state = {**state, "target": 0}
    if isinstance(policy, dict):
        state = {**state, "policy": {**_NOT_SHOWN, **policy}}
    if version != 1:
        return state
    features = state.get("features")
    offered = features & DEVICE_FEATURES_MASK if type(features) is int else None
    return {**state, "offered": offered, "stats": _NO_STATS, "hints": _NO_HINTS}


_NOT_SHOWN: Final[dict[str, Any]] = {
    "advertised": None,
    "read": None,
    "translation": asdict(Translation()),
}
_NO_STATS: Final[dict[str, Any]] = {
    "interval": 0,
    "begun": False,
    "known": False,
    "values": None,
    "age": 0.0,
}
_NO_HINTS: Final[dict[str, Any]] = {"last": 1, "command": 0, "answer": None, "pages": 0}


def _integer(value: object, limit: int) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < limit


def _is_policy_part(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _integer(value.get("requested"), _U32)
        and isinstance(value.get("accepted"), bool)
        and isinstance(value.get("policy"), str)
        and isinstance(value.get("policy_state", 0), dict | None)
        and all(
            name in value and (value[name] is None or _integer(value[name], _U32))
            for name in ("advertised", "read")
        )
        and _is_translation(value.get("translation"))
    )


def _is_translation(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == _NOT_SHOWN["translation"].keys()
        and Translation(**value).is_sound
    )


def _stats_part(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _integer(value.get("interval"), _U32)
        and isinstance(value.get("begun"), bool)
        and isinstance(value.get("known"), bool)
        and type(value.get("age")) is float
        and math.isfinite(value["age"])
        and "values" in value
        and (value["values"] is None or _are_stats(value["values"]))
    )


def _are_stats(values: object) -> bool:
    return isinstance(values, list | tuple) and all(
        isinstance(pair, list | tuple)
        and len(pair) == 2  # noqa: PLR2004 - a pair
        and _integer(pair[0], _U16)
        and _integer(pair[1], _U64)
        for pair in values
    )


def _hints_part(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _integer(value.get("last"), _U32)
        and value["last"] >= _NO_HINTS["last"]
        and _integer(value.get("command"), value["last"] + 1)
        and "answer" in value
        and (value["answer"] is None or _integer(value["answer"], _U32))
        and _integer(value.get("pages"), _U64)
    )


_CHECKS: Final[dict[str, Callable[[object], bool]]] = {
    "version": lambda value: _integer(value, _U32),
    "actual": lambda value: _integer(value, _U32),
    "poison_val": lambda value: _integer(value, _U32),
    "target": lambda value: _integer(value, _U32),
    "config": lambda value: isinstance(value, str) and bool(_SPACE.fullmatch(value)),
    "faults": lambda value: _integer(value, _U64),
    "last_fault": lambda value: isinstance(value, str),
    "offered": lambda value: value is None or _integer(value, 1 << 24),
    "features": lambda value: value is None or _integer(value, _U64),
    "ready": lambda value: isinstance(value, bool),
    "ledger": lambda value: isinstance(value, dict),
    "stats": _stats_part,
    "hints": _hints_part,
    "policy": _is_policy_part,
}
