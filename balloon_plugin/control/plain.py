"""What a query shows, as JSON can carry it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Final

from balloon_plugin.control.statistics import named
from balloon_plugin.events import Judgement, Verdict
from balloon_plugin.status import Status

__all__ = ["plain_status", "plain_verdict"]

_NONE: Final = Verdict(Judgement.UNDECIDED, "")


def plain_status(status: Status) -> dict[str, Any]:
    """Return everything that a query of the device shows; pages are 4 KiB pages."""
    plain = asdict(replace(status, verdict=_NONE))
    plain["verdict"] = plain_verdict(status.verdict)
    plain["gate"]["targets"] = status.gate.targets.value
    if status.stats is not None:
        plain["stats"] = {"age": status.stats.age, "values": named(status)}
    return plain


def plain_verdict(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON can carry it, whatever its policy wrote there."""
    plain: dict[str, Any] = {"judgement": verdict.judgement.value}
    plain["state"] = verdict.state
    plain["defects"] = [defect.name for defect in verdict.defects]
    plain["evidence"] = [
        {"event": str(item.event), "shows": str(item.shows)}
        for item in verdict.evidence
    ]
    return plain
