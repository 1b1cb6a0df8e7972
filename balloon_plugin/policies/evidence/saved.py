"""The saved form of what has been seen of a driver: a value that JSON can carry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from balloon_plugin.events import Evidence, GuestFacts
from balloon_plugin.policies.evidence.drivers import DriverKind, kinds
from balloon_plugin.policies.evidence.session import (
    EMPTY,
    MAX_EVIDENCE,
    MAX_READS,
    MOST,
    WHOLE,
    Session,
)
from balloon_plugin.policies.options import is_whole

__all__ = ["load", "save"]


def save(session: Session) -> dict[str, Any]:
    """Return the session as a value that JSON can carry."""
    return {
        "features": session.features,
        "fresh": session.fresh,
        "alive": _names(session.alive),
        "last": _names([session.last] if session.last else []),
        "lent": _names(session.lent),
        "buffer": [] if session.buffer == EMPTY else list(session.buffer),
        "count": session.count,
        "places": session.places,
        "entries": session.entries,
        "stated": session.stated,
        "yielded": session.yielded,
        "actual": session.actual,
        "reads": [list(read) for read in session.reads.items()],
        "taken": sorted(session.taken),
        "tracked": session.tracked,
        "evidence": [[item.event, item.shows] for item in session.evidence],
    }


def load(facts: GuestFacts, state: dict[str, Any]) -> Session:
    """Return the session that :func:`save` described.

    :raises ValueError: if it is damaged.
    """
    try:
        return _loaded(facts, state)
    except (AttributeError, KeyError, TypeError) as error:
        message = f"not a saved evidence session: {error!r}"
        raise ValueError(message) from error


def _loaded(facts: GuestFacts, state: dict[str, Any]) -> Session:
    features = _optional(state["features"], (1 << 64) - 1)
    session = Session(facts, features)
    # What was ruled out since may still be what a driver was last taken for.
    every = (*kinds(GuestFacts(()), None), *kinds(facts, None))
    session.fresh = bool(state["fresh"])
    session.alive = _named(session.alive, state["alive"])
    session.last = next(iter(_named(every, state["last"])), None)
    session.lent = _named(every, state["lent"])
    session.buffer = tuple(map(_whole, state["buffer"][:WHOLE])) or EMPTY
    session.count = _optional(state["count"], WHOLE)
    session.places = _optional(state["places"], (1 << 64) - 1) or 0
    session.entries = _whole(state["entries"])
    session.stated = bool(state["stated"])
    session.yielded = bool(state["yielded"])
    session.actual = _optional(state["actual"], MOST)
    session.reads = {
        _whole(value): _whole(size) for value, size in state["reads"][-MAX_READS:]
    }
    session.taken = {_whole(value) for value in state["taken"]}
    session.tracked = bool(state["tracked"])
    session.evidence = [
        Evidence(str(event), str(shows))
        for event, shows in state["evidence"][:MAX_EVIDENCE]
    ]
    return session


def _names(some: Iterable[DriverKind]) -> list[list[object]]:
    return [[kind.name, kind.page] for kind in some]


def _named(
    some: Iterable[DriverKind], names: Iterable[Sequence[Any]]
) -> tuple[DriverKind, ...]:
    """Return the kinds of these names, as far as they are among ``some``."""
    known = {(kind.name, kind.page): kind for kind in some}
    return tuple(known[name, page] for name, page in names if (name, page) in known)


def _whole(value: object) -> int:
    if is_whole(value, 0, MOST):
        return value
    raise ValueError(f"{value!r} in a saved evidence session is out of range")


def _optional(value: object, most: int) -> int | None:
    if value is None or is_whole(value, 0, most):
        return value
    raise ValueError(f"{value!r} in a saved evidence session is out of range")
