"""What a device offers to its driver, and what follows: its queues, its configuration.

Pure: the choice is a frozen value, everything else is computed from feature bits. The
bits of a policy count like the device's own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from balloon_plugin.errors import HostError
from balloon_plugin.layouts import VIRTIO_BALLOON_CONFIG, Feature, Queue

__all__ = ["DeviceOptions", "config_size", "queues"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions:
    """Which features of a balloon the device offers, each on or off.

    What is on by default costs no guest anything under any policy. Statistics are sent
    by the driver when the device asks, and it asks only if told to. All else waits for
    somebody to want it, because a driver that accepts it behaves otherwise.

    :ivar statistics: the driver tells how it uses its memory.
    :ivar deflate_on_oom: a guest that runs out of memory takes pages back by itself.
        Off: a target is then no promise any more, and Linux 4.19 to 5.5 gives pages
        back whenever it reclaims memory at all.
    :ivar must_tell_host: the driver tells before it uses a page again, so that a page
        may be given back as long as it is in the balloon. Off: a guest that is short of
        memory has to wait for an answer first. Offered anyway where the host's pages
        are larger than 4 KiB, if that is known when features are asked for. A
        vhost-user daemon learns it later: switch this on if memory is on huge pages.
    :ivar page_poison: the driver says what it fills free pages with. Off: of use only
        with ``reporting``, which obeys it.
    :ivar reporting: the driver reports pages as they become free, outside the balloon.
        Off: no policy can test what it reports, as there is no target for it.
    :ivar hinting: the driver lists its free pages when asked to, for a migration. Off:
        Linux keeps all of them from its programs until that has ended.
    """

    statistics: bool = True
    deflate_on_oom: bool = False
    must_tell_host: bool = False
    page_poison: bool = False
    reporting: bool = False
    hinting: bool = False

    @property
    def features(self) -> int:
        """The feature bits as a mask."""
        return sum(
            feature.mask for name, feature in _FEATURES.items() if getattr(self, name)
        )

    def changed(self, names: Iterable[str]) -> DeviceOptions:
        """Return these options with some others: ``reporting``, ``no-statistics``.

        :raises HostError: with the names that there are, if one is unknown.
        """
        changes = {}
        for text in names:
            name = text.removeprefix("no-").replace("-", "_")
            if name not in _FEATURES:
                known = ", ".join(each.replace("_", "-") for each in _FEATURES)
                message = (
                    f"there is no feature {text!r}: choose of {known}; "
                    "with no- before it, it is switched off"
                )
                raise HostError(message)
            changes[name] = not text.startswith("no-")
        return replace(self, **changes)


_FEATURES: Final = {
    "statistics": Feature.VIRTIO_BALLOON_F_STATS_VQ,
    "deflate_on_oom": Feature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM,
    "must_tell_host": Feature.VIRTIO_BALLOON_F_MUST_TELL_HOST,
    "page_poison": Feature.VIRTIO_BALLOON_F_PAGE_POISON,
    "reporting": Feature.VIRTIO_BALLOON_F_REPORTING,
    "hinting": Feature.VIRTIO_BALLOON_F_FREE_PAGE_HINT,
}

_BROUGHT_BY: Final = {
    Queue.STATSQ: Feature.VIRTIO_BALLOON_F_STATS_VQ,
    Queue.FREE_PAGE_VQ: Feature.VIRTIO_BALLOON_F_FREE_PAGE_HINT,
    Queue.REPORTING_VQ: Feature.VIRTIO_BALLOON_F_REPORTING,
}
"""The feature that each queue exists with; the first two always do (§5.5.2)."""


@functools.lru_cache
def queues(offered: int) -> tuple[Queue, ...]:
    """Return the queues of a device by their numbers, without gaps.

    §5.5.2 gives each queue a number of its own. QEMU's device and Linux's driver count
    only those that exist, and all others follow them: a driver with the fixed numbers
    would find no queue there.

    :param offered: the feature bits on offer.
    """
    return tuple(
        queue
        for queue in Queue
        if queue not in _BROUGHT_BY or offered & _BROUGHT_BY[queue].mask
    )


def config_size(offered: int) -> int:
    """Return the bytes in the configuration space, up to the last field on offer.

    8, 12 or 16, as QEMU has it: a field is there if its feature is (§5.5.4), and those
    before it are.
    """
    if offered & Feature.VIRTIO_BALLOON_F_PAGE_POISON.mask:
        return VIRTIO_BALLOON_CONFIG.size
    if offered & Feature.VIRTIO_BALLOON_F_FREE_PAGE_HINT.mask:
        return VIRTIO_BALLOON_CONFIG.offsets["poison_val"]
    return VIRTIO_BALLOON_CONFIG.offsets["free_page_hint_cmd_id"]
