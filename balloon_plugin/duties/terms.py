"""What a driver and its device agreed on, as far as duties depend on it."""

from __future__ import annotations

from dataclasses import dataclass

from balloon_plugin.layouts import Feature

__all__ = ["Terms"]

_MUST_TELL_HOST = Feature.VIRTIO_BALLOON_F_MUST_TELL_HOST.mask
_PAGE_POISON = Feature.VIRTIO_BALLOON_F_PAGE_POISON.mask
_REPORTING = Feature.VIRTIO_BALLOON_F_REPORTING.mask
_HINTING = Feature.VIRTIO_BALLOON_F_FREE_PAGE_HINT.mask
_VERSION_1 = Feature.VIRTIO_F_VERSION_1.mask


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one driver session at a moment.

    :ivar features: the bits that the driver accepted; 0 before it did, as a legacy
        driver may use its queues without (D19).
    :ivar poison_val: what it says that it fills free pages with.
    """

    features: int = 0
    poison_val: int = 0

    @property
    def legacy(self) -> bool:
        """Whether the device is used by its legacy interface."""
        return not self.features & _VERSION_1

    @property
    def told(self) -> bool:
        """Whether the driver tells before it uses a page of the balloon again."""
        return bool(self.features & _MUST_TELL_HOST)

    @property
    def hints(self) -> bool:
        """Whether the driver can be asked for hints."""
        return bool(self.features & _HINTING)

    @property
    def reports_are_free(self) -> bool:
        """Whether reported pages may become zero, which is what a discard makes them.

        D14: with PAGE_POISON, MUST NOT modify the content to a value other than
        ``poison_val``. Without, any content will do.
        """
        if self.features & _PAGE_POISON and self.poison_val:
            return False
        return bool(self.features & _REPORTING)
