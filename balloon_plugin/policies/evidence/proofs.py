"""What proves a driver good before it has done anything.

Drivers accept every feature that they know, so a feature accepted is a lower bound of
the driver's age, at no cost to the guest. The table's first row that applies is the
proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from balloon_plugin.events import ByteOrder
from balloon_plugin.layouts import PAGE_SIZE, Feature
from balloon_plugin.policies.evidence.drivers import FIXED_PAGE, DriverKind
from balloon_plugin.policies.evidence.session import Session

__all__ = ["Proof", "find", "proven"]


@dataclass(frozen=True, slots=True)
class Proof:
    """One row.

    :ivar bit: the feature that must be accepted.
    :ivar shows: what it shows.
    :ivar name: the feature's name, if it is none of the specification.
    :ivar version_1: whether VERSION_1 must be (``None``: either way).
    :ivar little: the guest must be known to be little-endian.
    :ivar page_4k: its pages must be known to be of 4 KiB.
    """

    bit: int
    shows: str
    name: str = ""
    version_1: bool | None = None
    little: bool = False
    page_4k: bool = False

    @property
    def seen(self) -> str:
        """What was seen, in a few words."""
        return f"{self.name or Feature(self.bit).name} accepted"

    def applies(self, session: Session) -> bool:
        """Return whether the driver of the session is proved good by this."""
        features, facts = session.features, session.facts
        if features is None or not features >> self.bit & 1:
            return False
        modern = bool(features & Feature.VIRTIO_F_VERSION_1.mask)
        return (
            self.version_1 in (None, modern)
            and not (self.little and facts.byte_order is not ByteOrder.LITTLE)
            and not (self.page_4k and facts.page_size != PAGE_SIZE)
        )


PROOFS: Final = (
    Proof(
        Feature.VIRTIO_BALLOON_F_FREE_PAGE_HINT, "The driver is newer than Linux 4.19."
    ),
    Proof(Feature.VIRTIO_BALLOON_F_REPORTING, "The driver is newer than Linux 4.19."),
    Proof(Feature.VIRTIO_F_RING_PACKED, "The driver is newer than Linux 4.19."),
    # With VERSION_1 drivers up to 4.6 had new bugs of the same kind, see drivers.
    Proof(
        Feature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM,
        "The driver is Linux 3.19 or newer.",
        version_1=False,
    ),
    Proof(
        Feature.VIRTIO_F_VERSION_1,
        "The driver is Linux 3.19 or newer, and little-endian.",
        little=True,
    ),
    # The difference is computed right since v2.6.27; indirect descriptors and
    # statistics came later. On little-endian 4 KiB pages no other bug shows.
    Proof(
        Feature.VIRTIO_RING_F_INDIRECT_DESC,
        "Newer than Linux 2.6.28, and little-endian with pages of 4 KiB.",
        version_1=False,
        little=True,
        page_4k=True,
    ),
    Proof(
        Feature.VIRTIO_BALLOON_F_STATS_VQ,
        "Newer than Linux 2.6.33, and little-endian with pages of 4 KiB.",
        version_1=False,
        little=True,
        page_4k=True,
    ),
)


def find(session: Session, endian_safe: int | None = None) -> Proof | None:
    """Return the first proof that applies.

    :param endian_safe: the number of the feature bit by which a driver says of itself
        that it is right, if that was offered.
    """
    rows = PROOFS if endian_safe is None else (_says_so(endian_safe), *PROOFS)
    return next((proof for proof in rows if proof.applies(session)), None)


def _says_so(bit: int) -> Proof:
    return Proof(
        bit,
        "The driver says of itself that it reads its target right.",
        name="VIRTIO_BALLOON_F_ENDIAN_SAFE",
    )


def proven(alive: Sequence[DriverKind]) -> tuple[DriverKind, ...]:
    """Return the kinds that a proof leaves.

    Features say nothing of drivers that are not Linux: those stay, and show themselves
    in the first buffer, before it is returned.
    """
    return tuple(kind for kind in alive if not kind.defects or kind in FIXED_PAGE)
