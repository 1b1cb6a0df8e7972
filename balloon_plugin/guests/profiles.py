"""The guests that there are, each with the truth about it.

Two tables: how the driver of a kernel behaves, with the source where that was read, and
which guests there are, one row each. ``VB`` is ``drivers/virtio/virtio_balloon.c``. To
add a guest add a row, and a driver if its kernel is not here yet.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder, Defect, Judgement
from balloon_plugin.guests.access import Access
from balloon_plugin.guests.traits import (
    DriverProfile,
    Engine,
    GuestProfile,
    Order,
    PfnForm,
)
from balloon_plugin.layouts import Feature

__all__ = ["GUESTS", "find"]

_BIG, _LITTLE = ByteOrder.BIG, ByteOrder.LITTLE
_GOOD, _BUGGY = Judgement.GOOD, Judgement.BUGGY


def _mask(*features: Feature) -> int:
    return sum(feature.mask for feature in features)


# --- drivers ------------------------------------------------------------------------

_ABSENT: Final = DriverProfile(
    source="real guests with drv=none: not even features are accepted",
    engine=Engine.ABSENT,
)

_LINUX_3_3: Final = DriverProfile(
    # Endian bug: 72e61eb40b55 (2.6.26) to 1a87228f (3.4). Page size bug, its second
    # form: 1b4aa2faeca1 (2.6.29) to 3ccc9372 (3.4). Both are still in 3.3.8.
    source="3.3.8: ciminaghi/linux-3.3.8@72877bd7 VB; 2.6.32.2 VB:59-66,124-202",
    engine=Engine.KTHREAD,
    features=_mask(
        Feature.VIRTIO_BALLOON_F_MUST_TELL_HOST,
        Feature.VIRTIO_BALLOON_F_STATS_VQ,
        Feature.VIRTIO_RING_F_INDIRECT_DESC,
    ),
    early_start=True,
    primes_stats=False,
    target_order=Order.NATIVE,
    pfn_form=PfnForm.WRONG_SHIFT,
    counts_guest_pages=True,
    frees_by_wire=True,
    zero_on_remove=False,  # VB:350
)

_LINUX_3_4: Final = DriverProfile(
    source="3.4.4: prtos-project/prtos-linux-3.4.4@6365da96 VB, VB:384-396; 3.4.113",
    engine=Engine.KTHREAD,
    features=_LINUX_3_3.features,
    early_start=True,
    primes_stats=False,
)

_LINUX_6_1: Final = DriverProfile(
    source="6.1-rc3: Rtoax@9da387e9 VB; features all present in 5.8.18",
    features=_mask(
        Feature.VIRTIO_BALLOON_F_MUST_TELL_HOST,
        Feature.VIRTIO_BALLOON_F_STATS_VQ,
        Feature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM,
        Feature.VIRTIO_BALLOON_F_FREE_PAGE_HINT,
        Feature.VIRTIO_BALLOON_F_PAGE_POISON,
        Feature.VIRTIO_BALLOON_F_REPORTING,
        Feature.VIRTIO_RING_F_INDIRECT_DESC,
        Feature.VIRTIO_F_VERSION_1,
    ),
)


# --- guests -------------------------------------------------------------------------

_64K: Final = 64 << 10
_4K: Final = 4 << 10

_TABLE: Final = (
    GuestProfile(
        name="linux-3.3-be-4k",
        driver=_LINUX_3_3,
        byte_order=_BIG,
        page_size=_4K,
        truth=_BUGGY,
        defects=(Defect.ENDIAN_TARGET,),
    ),
    GuestProfile(
        name="linux-3.3-be-64k",
        driver=_LINUX_3_3,
        byte_order=_BIG,
        page_size=_64K,
        truth=_BUGGY,
        defects=(Defect.ENDIAN_TARGET, Defect.PAGE_SHIFT),
    ),
    # On pages of 4 KiB the wrong shift is by 0, and raw little-endian is right.
    GuestProfile(
        name="linux-3.3-le-4k",
        driver=_LINUX_3_3,
        byte_order=_LITTLE,
        page_size=_4K,
        truth=_GOOD,
    ),
    GuestProfile(
        name="linux-3.4-be-4k",
        driver=_LINUX_3_4,
        byte_order=_BIG,
        page_size=_4K,
        truth=_GOOD,
    ),
    GuestProfile(
        name="linux-3.4-be-64k",
        driver=_LINUX_3_4,
        byte_order=_BIG,
        page_size=_64K,
        truth=_GOOD,
    ),
    GuestProfile(
        name="linux-3.4-le-4k",
        driver=_LINUX_3_4,
        byte_order=_LITTLE,
        page_size=_4K,
        truth=_GOOD,
    ),
    GuestProfile(
        name="linux-6.1-le-4k",
        driver=_LINUX_6_1,
        byte_order=_LITTLE,
        page_size=_4K,
        modern=True,
        access=Access.WORD,
        truth=_GOOD,
    ),
    GuestProfile(
        name="no-driver",
        driver=_ABSENT,
        byte_order=_LITTLE,
        page_size=_4K,
        truth=Judgement.UNDECIDED,
    ),
)

GUESTS: Final = {guest.name: guest for guest in _TABLE}
"""Every guest by its name."""


def find(name: str) -> GuestProfile:
    """Return the guest of this name.

    :raises HostError: with the names that exist, if this one does not.
    """
    if name in GUESTS:
        return GUESTS[name]
    near = get_close_matches(name, GUESTS, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise HostError(
        f"there is no guest {name!r}; {hint}The guests are {', '.join(GUESTS)}"
    )
