"""The policy ``evidence``: right about every driver, and harmless to every guest.

From the bottom: what numbers look like (``numbers``), every kind of driver as a table
(``drivers``), and the elimination of those that do not explain what was seen
(``session``). Beside them what features prove (``proofs``), what can be done about each
kind (``remedies``), what follows from standing still (``patience``), and where the
policy may stand with a driver (``stages``). Above, one driver's way through all that
(``examination``), and the options and hooks around it (``policy``).
"""

from __future__ import annotations

from balloon_plugin.policies.evidence.policy import EvidencePolicy

__all__ = ["EvidencePolicy"]
