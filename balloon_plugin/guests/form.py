"""What a driver and its device agreed on about their rings."""

from __future__ import annotations

from dataclasses import dataclass

from balloon_plugin.events import ByteOrder

__all__ = ["RingForm"]


@dataclass(frozen=True, slots=True)
class RingForm:
    """How all rings of one driver session are.

    :ivar order: byte order of all that is in them.
    :ivar packed: whether they are packed, instead of split.
    :ivar event_idx: whether each side says at which entry it wants to be notified.
    """

    order: ByteOrder
    packed: bool = False
    event_idx: bool = False
