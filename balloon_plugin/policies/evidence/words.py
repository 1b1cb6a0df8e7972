"""What it means that some kinds of drivers are ruled out, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from balloon_plugin.policies.evidence.drivers import DriverKind

__all__ = ["shown_by"]


def shown_by(before: Sequence[DriverKind], after: Sequence[DriverKind]) -> str:
    """Say in a sentence what it means that some kinds are ruled out."""
    if not after:
        return "No driver that is known would do this."
    left = list(dict.fromkeys(kind.name for kind in after))
    gone = sorted({kind.name for kind in before}.difference(left))
    if len(left) == 1 and (gone or len(after) == 1):
        size = f" with pages of {_sizes(after)} KiB" if len(after) == 1 else ""
        return f"Only {left[0]}{size} would do this."
    if gone:
        return f"Rules out {_some(gone)}."
    return f"The guest's pages are of {_sizes(after)} KiB."


def _some(names: Sequence[str]) -> str:
    most = 3
    more = f"; and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more


def _sizes(alive: Sequence[DriverKind]) -> str:
    return " or ".join(str(size * 4) for size in sorted({kind.page for kind in alive}))
