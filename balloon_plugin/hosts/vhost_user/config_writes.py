"""Whole-space configuration writes back into the accesses that the guest made.

QEMU's generic device keeps a copy of the configuration space. Each access of the guest
changes that copy, and the whole of it is sent, stale ``num_pages`` included
(``hw/virtio/vhost-user-base.c``; each read of the guest refreshes it from our reply). A
legacy virtio-mmio driver writes byte by byte, so one ``actual`` arrives as four
messages with torn values: 0 to 256 as 0, 256, 256, 256. Comparing each message with
what the copy must have held before tells which byte was written.

Nothing here knows what ``actual`` means. ``num_pages`` is the driver's to read only and
never passed on (rule 5 of the architecture).
"""

from __future__ import annotations

from typing import Final, TypeAlias

from balloon_plugin.layouts import VIRTIO_BALLOON_CONFIG

__all__ = ["PATIENCE", "ConfigWrites", "Write"]

Write: TypeAlias = tuple[int, bytes]
"""One access of the guest: offset and the bytes written."""

PATIENCE: Final = 0.1
"""Seconds after which a field of which bytes are missing was not written bytewise.

A guest writes four bytes within microseconds, even under software emulation.
"""

_SPACE = VIRTIO_BALLOON_CONFIG
_ACTUAL: Final = _SPACE.offsets["actual"]
_POISON: Final = _SPACE.offsets["poison_val"]
_WIDTH: Final = 4
_WHOLE: Final = 2 * _ACTUAL
"""Bytes from which a write at offset 0 is a whole space, not an access of the guest."""


class ConfigWrites:
    """What one front end's copy of the configuration space is, and what changed it."""

    def __init__(self) -> None:
        self._copy = bytearray(_SPACE.size)
        self._position = 0
        self._field = _ACTUAL
        self._since = 0.0

    @property
    def deadline(self) -> float | None:
        """When :meth:`settle` has something to say, if nothing is written before."""
        return self._since + PATIENCE if self._position else None

    def seen(self, offset: int, data: bytes) -> None:
        """Note a reply to the front end, which refreshes its copy."""
        part = data[: max(0, _SPACE.size - offset)]
        self._copy[offset : offset + len(part)] = part

    def forget(self) -> None:
        """Drop a field that was being written: its driver is gone."""
        self._begin_field()

    def postpone(self, now: float) -> None:
        """Wait anew for missing bytes: the guest stood still meanwhile."""
        self._since = now

    def accesses(
        self, offset: int, data: bytes, *, modern: bool, now: float
    ) -> list[Write]:
        """Return what the guest wrote behind one message, without ``num_pages``.

        :param modern: whether VERSION_1 was negotiated; such drivers write whole
            fields.
        """
        if offset == 0 and len(data) >= _WHOLE:
            return self._behind(data, modern=modern, now=now)
        skipped = max(0, _ACTUAL - offset)
        return [(offset + skipped, data[skipped:])] if data[skipped:] else []

    def settle(self, now: float) -> list[Write]:
        """Return the field whose other bytes did not come in time, as a whole."""
        if self.deadline is None or now < self.deadline:
            return []
        field = self._field
        self._begin_field()
        return [self._whole(field)]

    def _behind(self, space: bytes, *, modern: bool, now: float) -> list[Write]:
        """Return the access behind a message that has the whole space."""
        changed = self._changed(space)
        self.seen(0, space)
        if modern or len(changed) > 1:
            self._begin_field()
            return [self._whole(field) for field in changed or [_ACTUAL]]
        if changed:
            self._field = next(iter(changed))
        return [self._byte_or_whole(changed.get(self._field, set()), now)]

    def _changed(self, space: bytes) -> dict[int, set[int]]:
        """Return for each field that changed which of its bytes did."""
        differs = {
            at for at, byte in enumerate(space[: _SPACE.size]) if byte != self._copy[at]
        }
        fields = {
            field: {at - field for at in differs if 0 <= at - field < _WIDTH}
            for field in (_ACTUAL, _POISON)
        }
        return {field: places for field, places in fields.items() if places}

    def _byte_or_whole(self, places: set[int], now: float) -> Write:
        # The bytes of a field come in ascending order, and one that is written with the
        # value it has changes nothing: no change at all fits any position.
        at = self._position
        if places <= {at}:
            write = (self._field + at, bytes(self._copy[self._field + at :][:1]))
            self._position, self._since = at + 1, now
            if self._position == _WIDTH:
                self._begin_field()
            return write
        write = self._whole(self._field)
        self._begin_field()
        return write

    def _whole(self, field: int) -> Write:
        return field, bytes(self._copy[field : field + _WIDTH])

    def _begin_field(self) -> None:
        self._position, self._field = 0, _ACTUAL
