"""What a device remembers of one driver, until that resets it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from balloon_plugin.core import ConfigSpace
from balloon_plugin.duties.terms import Terms
from balloon_plugin.features import config_size

__all__ = ["Session"]


@dataclass(slots=True)
class Session:
    """One driver session (rule 4).

    :ivar config: the configuration space.
    :ivar offered: the bits on offer, fixed when the driver accepts some of them;
        ``None`` before anybody asked.
    :ivar features: the bits that the driver accepted, ``None`` before it did.
    :ivar ready: whether it set DRIVER_OK.
    :ivar driver: whether it has shown itself.
    :ivar seen: the queues of pages of which the policy knows where they are.
    :ivar looked: whether it acted on a target, so that another must be announced to it.
    :ivar announcement_due: whether a config interrupt has to wait for DRIVER_OK.
    :ivar faults: how often it broke the specification.
    :ivar last_fault: the newest of them, a sentence.
    :ivar lost: whether the device is lost until it is reset.
    """

    config: ConfigSpace = field(default_factory=ConfigSpace)
    offered: int | None = None
    features: int | None = None
    ready: bool = False
    driver: bool = False
    seen: set[int] = field(default_factory=set)
    looked: bool = False
    announcement_due: bool = False
    faults: int = 0
    last_fault: str = ""
    lost: bool = False

    @property
    def terms(self) -> Terms:
        """What was agreed on."""
        return Terms(self.features or 0, self.config.poison_val)

    def save(self) -> dict[str, Any]:
        """Return its part of a snapshot."""
        return {
            **self.config.save(),
            "offered": self.offered,
            "features": self.features,
            "ready": self.ready,
            "faults": self.faults,
            "last_fault": self.last_fault,
        }

    @classmethod
    def load(cls, saved: dict[str, Any]) -> Session:
        """Return the session that a snapshot describes."""
        driver = saved["ready"] or saved["features"] is not None
        session = cls(
            ConfigSpace.load(saved),
            offered=saved["offered"],
            features=saved["features"],
            ready=saved["ready"],
            driver=driver,
            looked=driver,
            faults=saved["faults"],
            last_fault=saved["last_fault"],
        )
        session.config.size = config_size(saved["offered"] or 0)
        return session
