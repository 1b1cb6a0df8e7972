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

    :ivar feature: the bit that must be accepted.
    :ivar shows: what it shows.
    :ivar version_1: whether VERSION_1 must be (``None``: either way).
    :ivar little: the guest must be known to be little-endian.
    :ivar page_4k: its pages must be known to be of 4 KiB.
    """

    feature: Feature
    shows: str
    version_1: bool | None = None
    little: bool = False
    page_4k: bool = False

    @property
    def seen(self) -> str:
        """What was seen, in a few words."""
        return f"{self.feature.name} accepted"

    def applies(self, session: Session) -> bool:
        """Return whether the driver of the session is proved good by this."""
        features, facts = session.features, session.facts
        if features is None or not features & self.feature.mask:
            return False
        modern = bool(features & Feature.VIRTIO_F_VERSION_1.mask)
        return (
            self.version_1 in (None, modern)
            and not (self.little and facts.byte_order is not ByteOrder.LITTLE)
            and not (self.page_4k and facts.page_size != PAGE_SIZE)
        )


PROOFS: Final = (
    Proof(
        Feature.VIRTIO_BALLOON_F_FREE_PAGE_HINT, "the driver is newer than Linux 4.19"
    ),
    Proof(Feature.VIRTIO_BALLOON_F_REPORTING, "the driver is newer than Linux 4.19"),
    Proof(Feature.VIRTIO_F_RING_PACKED, "the driver is newer than Linux 4.19"),
    # With VERSION_1 drivers up to 4.6 had new bugs of the same kind, see drivers.
    Proof(
        Feature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM,
        "the driver is Linux 3.19 or newer",
        version_1=False,
    ),
    Proof(
        Feature.VIRTIO_F_VERSION_1,
        "the driver is Linux 3.19 or newer, and little-endian",
        little=True,
    ),
    # The difference is computed right since v2.6.27; indirect descriptors and
    # statistics came later. On little-endian 4 KiB pages no other bug shows.
    Proof(
        Feature.VIRTIO_RING_F_INDIRECT_DESC,
        "newer than Linux 2.6.28, and little-endian with 4 KiB pages",
        version_1=False,
        little=True,
        page_4k=True,
    ),
    Proof(
        Feature.VIRTIO_BALLOON_F_STATS_VQ,
        "newer than Linux 2.6.33, and little-endian with 4 KiB pages",
        version_1=False,
        little=True,
        page_4k=True,
    ),
)


def find(session: Session) -> Proof | None:
    """Return the first proof that applies."""
    return next((proof for proof in PROOFS if proof.applies(session)), None)


def proven(
    alive: Sequence[DriverKind], *, strictly: bool = False
) -> tuple[DriverKind, ...]:
    """Return the kinds that a proof leaves.

    Features say nothing of drivers that are not Linux: those stay, and show themselves
    in the first buffer, before it is returned.

    :param strictly: leave the right drivers only.
    """
    others = () if strictly else FIXED_PAGE
    return tuple(kind for kind in alive if not kind.defects or kind in others)
