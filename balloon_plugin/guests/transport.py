"""What a machine offers to a guest: its RAM, and the bus to one virtio device.

A guest's driver knows nothing of the host but this. A host that offers it needs no
import of this module: the protocols are structural. Interrupts are flags that the guest
looks at when it runs; so a test decides, step by step, who acts next.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Machine", "Transport"]


class Transport(Protocol):
    """The bus between one driver and its device."""

    def reset(self) -> None:
        """Write status 0: the device forgets its driver; queues and interrupts go."""

    def offered_features(self) -> int:
        """Return the feature bits on offer; a legacy bus shows none above 31."""

    def accept_features(self, features: int) -> None:
        """Write back those that the driver wants (and FEATURES_OK, on a modern bus)."""

    def queue_size(self, index: int) -> int:
        """Return how many entries queue ``index`` has at most; 0 if there is none."""

    def start_queue(
        self, index: int, size: int, desc: int, avail: int, used: int
    ) -> None:
        """Tell the device where the three parts of a split queue lie in RAM."""

    def device_ready(self) -> None:
        """Set DRIVER_OK."""

    def kick(self, index: int) -> None:
        """Tell the device that queue ``index`` has new buffers."""

    def config_read(self, offset: int, size: int) -> bytes:
        """Read configuration space in one access of this width."""

    def config_write(self, offset: int, data: bytes) -> None:
        """Write configuration space in one access of this width."""

    def take_config_interrupt(self) -> bool:
        """Return whether a config interrupt came since the last call."""

    def take_queue_interrupt(self, index: int) -> bool:
        """Return whether an interrupt for queue ``index`` came since the last call."""

    def now(self) -> float:
        """Return the guest's clock in seconds."""


class Machine(Transport, Protocol):
    """A transport together with the RAM of the machine that it is in."""

    @property
    def ram_start(self) -> int:
        """Guest-physical address of the first byte of RAM."""

    @property
    def ram(self) -> memoryview:
        """The RAM itself, one range of bytes that the guest may read and write."""
