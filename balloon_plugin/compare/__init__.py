"""The same guests under each policy: what was concluded, and what it cost."""

from __future__ import annotations

from balloon_plugin.compare.runner import Row, compare, run

__all__ = ["Row", "compare", "run"]
