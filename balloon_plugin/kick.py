"""A kick: one queue that has something for the device, and how it is answered.

Knows guest memory and chains of descriptors, and nothing of what the queue is for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from balloon_plugin.hookspecs import Host, VirtQueue
from balloon_plugin.memory import GuestMemory
from balloon_plugin.virtqueue import Chain

__all__ = ["CHAINS_AT_ONCE", "Fault", "Kick", "read"]

CHAINS_AT_ONCE: Final = 16
"""Chains taken from a queue in one go; a batch may exceed its budget by these."""

Fault: TypeAlias = Callable[[str], None]
"""Is told what the driver did wrong, a sentence."""


@dataclass(frozen=True, slots=True, eq=False)
class Kick:
    """A queue to be served now.

    :ivar host: whose guest it is.
    :ivar queue: the queue, which the driver has started.
    :ivar index: its number among those offered.
    :ivar fault: is told what the driver did wrong there.
    """

    host: Host
    queue: VirtQueue
    index: int
    fault: Fault

    def answer(self, chains: Sequence[Chain]) -> None:
        """Return chains to the driver, if there are any, and notify it if it wants."""
        if chains and self.queue.push(chains):
            self.host.notify_queue(self.index)


def read(chain: Chain, memory: GuestMemory, most: int, fault: Fault) -> bytes:
    """Return the device-readable bytes of a chain, as far as they can be read (rule 3).

    :param most: bytes to read; what follows is ignored.
    """
    if chain.fault is not None:
        fault(chain.fault)
    data, room = b"", most
    for address, size in chain.readable:
        part = memory.read(address, min(size, room))
        if part is None:
            fault(f"a buffer at {address:#x} is not in RAM")
            break
        data += part
        room -= len(part)
    return data
