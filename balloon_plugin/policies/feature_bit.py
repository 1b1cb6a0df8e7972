"""The policy ``feature-bit``: a driver says of itself that it is not buggy.

Anthony Liguori's reply to the RFC: "create a new feature VIRTIO_BALLOON_F_ENDIAN_SAFE,
advertise it in the host, and add a guest kernel patch to ack it in newer kernels". It
costs the guest nothing and never guesses: a fixed driver says so before it is asked for
a page.

Nothing came of it: the bit was never allocated, and no driver knows it. A device MUST
NOT offer a bit that is not in the specification (VIRTIO 1.3 §2.2.2), so this policy is
**non-conformant**: an experiment that shows what the bit would have done.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

from balloon_plugin.errors import PluginError
from balloon_plugin.events import (
    Answer,
    ByteOrder,
    DeviceReset,
    Event,
    Evidence,
    FeaturesAcked,
    Gate,
    GuestDescribed,
    Judgement,
    Verdict,
)
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.layouts import DEVICE_FEATURES_MASK, Feature
from balloon_plugin.policies.options import flag, integer, is_whole

__all__ = ["VIRTIO_BALLOON_F_ENDIAN_SAFE", "FeatureBitPolicy"]

VIRTIO_BALLOON_F_ENDIAN_SAFE: Final = 22
"""Our number for the bit that the reply proposes; it has no number of its own.

It has to lie in 0 to 23: those bits belong to the device type (§2.2), and a legacy
driver, which is who has the bug, sees none above 31. The specification hands them out
from below (0 to 5 are taken, 6 is proposed for two things), and other monitors have
helped themselves to 8 and 16. That leaves the top; 23 would do as well.
"""

_NAME: Final = "VIRTIO_BALLOON_F_ENDIAN_SAFE"
_HIGHEST_BIT: Final = DEVICE_FEATURES_MASK.bit_length() - 1
_TAKEN: Final = {
    feature.value: feature.name
    for feature in Feature
    if feature.mask & DEVICE_FEATURES_MASK
}
_MAX_FEATURES: Final = (1 << 64) - 1


# --- the states ---------------------------------------------------------------------


class _State(enum.Enum):
    """Where the question stands."""

    WAITING = "WAITING"
    ACKED = "ACKED"
    LITTLE_ENDIAN = "LITTLE_ENDIAN"
    NOT_ACKED = "NOT_ACKED"


@dataclass(frozen=True, slots=True)
class _Row:
    """What a state means. ``{bit}`` and ``{features}`` are filled in."""

    judgement: Judgement
    targets: Answer
    reason: str = ""
    event: str = ""
    shows: str = ""


_STATES: Final = {
    _State.WAITING: _Row(
        Judgement.UNDECIDED,
        Answer.DEFERRED,
        reason="no driver has accepted its features yet; "
        "the target takes effect if one can be believed",
    ),
    _State.ACKED: _Row(
        Judgement.GOOD,
        Answer.ACCEPTED,
        event="features acked = {features:#x}",
        shows=f"The driver accepted {_NAME} (bit {{bit}}): it says that it reads its "
        "target right.",
    ),
    _State.LITTLE_ENDIAN: _Row(
        Judgement.GOOD,
        Answer.ACCEPTED,
        event="the guest is little-endian",
        shows="A driver in the byte order of the wire reads its target right, with or "
        "without the endian bug.",
    ),
    _State.NOT_ACKED: _Row(
        Judgement.BUGGY,
        Answer.REFUSED,
        reason=f"the driver did not accept {_NAME} (bit {{bit}}), so it may read its "
        "target wrong; choose another policy to use its balloon",
        event="features acked = {features:#x}",
        # No defect is shown: this is a refusal, not a finding.
        shows=f"The driver does not know {_NAME} (bit {{bit}}), which proves nothing: "
        "drivers that were fixed before there was a bit look the same.",
    ),
}


# --- the policy ---------------------------------------------------------------------


class FeatureBitPolicy:
    """Believe a driver that accepts a feature bit for it: the reply to the RFC.

    Non-conformant: it offers a feature bit that was never allocated.

    Until the driver has accepted its features nothing is advertised or reclaimed, and
    targets are deferred. Then a driver with the bit is GOOD and one without it BUGGY,
    which here only means that it is not believed. A guest that the host knows to be
    little-endian needs no bit, since the endian bug cannot show there.

    The verdict follows from the features and from what the host says. So it changes
    when the host learns or corrects the guest's byte order during a session.

    :param bit: the number of the feature bit, 6 to 23.
    :param always: whether a guest known to be little-endian needs the bit as well.
    """

    def __init__(
        self,
        *,
        bit: int | str = VIRTIO_BALLOON_F_ENDIAN_SAFE,
        always: bool | str = False,
    ) -> None:
        self._bit = _free_bit(bit)
        self._always = flag("always", always)
        self._features: int | None = None
        self._byte_order: ByteOrder | None = None

    @hookimpl
    def policy_features(self) -> int:
        """Offer the bit, also to guests that need none: the offer never changes."""
        return 1 << self._bit

    @hookimpl
    def policy_observe(self, event: Event) -> None:
        """Remember the driver's features and the guest's byte order."""
        match event:
            case GuestDescribed(facts=facts):
                self._byte_order = facts.byte_order
            case FeaturesAcked(features=features):
                self._features = features
            case DeviceReset():
                # The byte order stays: that is the host's word, not the driver's.
                self._features = None

    @hookimpl
    def policy_gate(self, requested: int) -> Gate:
        """Open the gate to a driver that is good, and shut it to all others."""
        row = _STATES[self._state()]
        is_good = row.judgement is Judgement.GOOD
        reason = self._filled(row.reason)
        return Gate(requested if is_good else 0, is_good, row.targets, reason)

    @hookimpl
    def policy_verdict(self) -> Verdict:
        """Return what the features and the byte order say."""
        state = self._state()
        row = _STATES[state]
        evidence = Evidence(self._filled(row.event), self._filled(row.shows))
        return Verdict(
            row.judgement, state.value, evidence=(evidence,) if row.shows else ()
        )

    @hookimpl
    def policy_save(self) -> dict[str, Any]:
        """Return the features; the byte order is for the next host to say."""
        return {"bit": self._bit, "features": self._features}

    @hookimpl
    def policy_load(self, state: dict[str, Any]) -> None:
        """Take saved features over.

        :raises ValueError: if they are none, or were saved with another bit on offer.
        """
        if state.get("bit") != self._bit:
            raise ValueError(f"the saved driver was not offered bit {self._bit}")
        self._features = _saved_features(state)

    def _state(self) -> _State:
        if self._features is None:
            return _State.WAITING
        if self._features >> self._bit & 1:
            return _State.ACKED
        if self._byte_order is ByteOrder.LITTLE and not self._always:
            return _State.LITTLE_ENDIAN
        return _State.NOT_ACKED

    def _filled(self, text: str) -> str:
        return text.format(bit=self._bit, features=self._features or 0)


def _free_bit(value: int | str) -> int:
    bit = integer("bit", value, 0, _HIGHEST_BIT)
    if bit in _TAKEN:
        raise PluginError(
            f"the option bit cannot be {bit}, which is {_TAKEN[bit]}: choose one from "
            f"{max(_TAKEN) + 1} to {_HIGHEST_BIT}"
        )
    return bit


def _saved_features(state: dict[str, Any]) -> int | None:
    features = state.get("features", "")  # never saved without: "" are no features
    if features is None or is_whole(features, 0, _MAX_FEATURES):
        return features
    raise ValueError(f"{features!r} are no features of a driver")
