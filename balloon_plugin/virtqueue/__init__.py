"""Virtqueues, the device's side (VIRTIO 1.3 §2.7, §2.8).

:func:`open_queue` is how a host comes to one: a :class:`Ring` says what the driver laid
out and what was negotiated, and so which of the two formats it is. Each module here has
one idea: a chain of buffers, the words that two processors share, a format.
"""

from __future__ import annotations

from balloon_plugin.virtqueue.chain import (
    MAX_CHAIN_BYTES,
    MAX_CHAIN_DESCRIPTORS,
    Chain,
)
from balloon_plugin.virtqueue.inflight import inflight_size
from balloon_plugin.virtqueue.opening import Queue, distance, find_base, open_queue
from balloon_plugin.virtqueue.packed import PackedQueue
from balloon_plugin.virtqueue.ring import RING_FEATURES, Ring
from balloon_plugin.virtqueue.split import SplitQueue

__all__ = [
    "MAX_CHAIN_BYTES",
    "MAX_CHAIN_DESCRIPTORS",
    "RING_FEATURES",
    "Chain",
    "PackedQueue",
    "Queue",
    "Ring",
    "SplitQueue",
    "distance",
    "find_base",
    "inflight_size",
    "open_queue",
]
