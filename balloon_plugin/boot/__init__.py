"""Real guests: booted with a balloon of ours, watched, and shut down again."""

from __future__ import annotations

from balloon_plugin.boot.plan import Ending, Kind, Plan, Result, Step
from balloon_plugin.boot.story import boot, boot_uml

__all__ = ["Ending", "Kind", "Plan", "Result", "Step", "boot", "boot_uml"]
