"""A driver session whose front end is away, as a value, and its saved form.

The guest lives on when its connection is lost: the daemon died, or cut it off. A
session that is parked is taken up again if the same driver comes back, which three
things show together: the memory is that of the same files, the accepted features are
the same, and the queues stand where they stood. A front end that has no record of
where a queue stands takes it from the used ring, and the device returns buffers in
order, so that this is the first buffer not returned. A packed ring has no such place;
there the ring itself is looked at, and the front end's word does not count.

The saved form is an object with

``boot``, ``files``
    The machine's boot, and the files of guest memory as ``[device, inode]``.
``features``, ``ready``
    What the driver accepted, ring features included, and whether it set DRIVER_OK.
``queues``
    For the inflate and the deflate queue by number: ``[base, owed]``, the position of
    the first buffer that was not returned, and how many from there on were handled. The
    state is saved before they are returned, so that after a death in between they are
    owed to the driver, and must not be handled twice.
``device``
    What the device's ``save`` returned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from balloon_plugin.errors import HostError
from balloon_plugin.layouts import VIRTQUEUE_MAX_SIZE, Queue
from balloon_plugin.virtqueue import Ring, distance

__all__ = [
    "COUNTED",
    "FORM",
    "Files",
    "Parked",
    "Place",
    "export",
    "imported",
    "pack",
    "unpack",
]

FORM: Final = 1
"""Version of the saved form; grows when an older daemon would misread a newer one."""

COUNTED: Final = (Queue.INFLATEQ, Queue.DEFLATEQ)
"""Queues whose buffers must be handled exactly once.

Buffers of the others (statistics, reports) may be handled again: their pages are the
device's as long as the buffer is.
"""

_BASES: Final = 1 << 32
_U64: Final = 1 << 64

Files: TypeAlias = frozenset[tuple[int, int]]
"""Files as (device, inode)."""

Place: TypeAlias = tuple[int, int]
"""The position of the first buffer not returned, and how many are owed from there."""


@dataclass(frozen=True, slots=True)
class Parked:
    """A driver session whose front end is away.

    :ivar boot: which boot of this machine it belongs to: no guest outlives it. Nothing
        if it came from another machine.
    :ivar files: what guest memory was.
    :ivar features: what the driver accepted.
    :ivar ready: whether it set DRIVER_OK.
    :ivar queues: where its queues stood.
    :ivar device: what the device saved.
    """

    boot: str
    files: Files
    features: int
    ready: bool
    queues: Mapping[int, Place]
    device: dict[str, Any]

    @property
    def migrated(self) -> bool:
        """Whether it came from another machine, with a guest that is to go on here."""
        return not self.boot

    def is_of(self, boot: str, files: Files) -> bool:
        """Return whether this is the guest with this memory, or some of it."""
        if self.migrated:
            return True
        return boot == self.boot and not self.files.isdisjoint(files)

    def owed(self, index: int, base: int, ring: Ring | None) -> int | None:
        """Return how many buffers are owed to the driver of a queue that starts.

        :param base: the position of the first buffer that was not returned.
        :param ring: of the queue, if it is known yet.
        :returns: ``None`` if that is not where the session left the queue.
        """
        place, owed = self.queues.get(index, (base, 0))
        if base == place:
            return owed
        returned = owed + 1 if ring is None else distance(ring, place, base)
        return owed - returned if returned <= owed else None


# --- on the way to another machine --------------------------------------------------


def export(target: int, parked: Parked | None) -> bytes:
    """Return what another machine must know: memory and queues are the front end's."""
    if parked is not None:
        parked = replace(parked, boot="", files=frozenset(), queues={})
    return json.dumps(pack(target, parked)).encode()


def imported(data: bytes) -> tuple[int, Parked | None]:
    """Return the target and the session that another machine sent.

    :raises HostError: if they are of a newer version, or damaged.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    target, parked = unpack(value if isinstance(value, dict) else {})
    if parked is not None:
        parked = replace(parked, boot="", files=frozenset(), queues={})
    return target, parked


# --- the saved form -----------------------------------------------------------------


def pack(target: int, parked: Parked | None) -> dict[str, Any]:
    """Return what is saved of a slot.

    :param target: the user's, in pages.
    """
    session = None
    if parked is not None:
        session = {
            "boot": parked.boot,
            "files": sorted([*map(list, parked.files)]),
            "features": parked.features,
            "ready": parked.ready,
            "queues": {str(index): list(at) for index, at in parked.queues.items()},
            "device": parked.device,
        }
    return {"version": FORM, "target": target, "session": session}


def unpack(value: Mapping[str, Any]) -> tuple[int, Parked | None]:
    """Return the target and the session that were saved.

    :raises HostError: if they are of a newer version, or damaged.
    """
    version = value.get("version")
    if type(version) is int and version > FORM:
        raise HostError(
            f"the saved session has version {version}, this is version {FORM}: serve "
            "it with a newer balloon_plugin"
        )
    try:
        match value:
            case {"version": 1, "target": int(target), "session": None}:
                return _number(target, 1 << 32), None
            case {"version": 1, "target": int(target), "session": dict(session)}:
                return _number(target, 1 << 32), _session(session)
    except (KeyError, TypeError, ValueError):
        pass
    raise HostError("the saved session is damaged: remove it, or save it again")


def _session(session: Mapping[str, Any]) -> Parked:
    match session:
        case {
            "boot": str(boot),
            "files": list(files),
            "ready": bool(ready),
            "queues": dict(queues),
            "device": dict(device),
        }:
            return Parked(
                boot=boot,
                files=frozenset(
                    (_number(on, _U64), _number(inode, _U64)) for on, inode in files
                ),
                features=_number(session["features"], _U64),
                ready=ready,
                queues={
                    int(index): (
                        _number(base, _BASES),
                        _number(owed, VIRTQUEUE_MAX_SIZE + 1),
                    )
                    for index, (base, owed) in queues.items()
                },
                device=device,
            )
    raise ValueError


def _number(value: object, limit: int) -> int:
    if type(value) is int and 0 <= value < limit:
        return value
    raise ValueError
