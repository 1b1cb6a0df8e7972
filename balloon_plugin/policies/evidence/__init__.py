"""The policy ``evidence``: right about every driver, and harmless to every guest.

Four files, from the bottom: what numbers look like (``numbers``), every kind of driver
as a table (``drivers``), the elimination of those that do not explain what was seen
(``session``), and what is done with those that remain (``policy``).
"""

from __future__ import annotations

from balloon_plugin.policies.evidence.policy import EvidencePolicy

__all__ = ["EvidencePolicy"]
