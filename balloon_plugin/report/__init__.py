"""Reports: one page with everything in it, for whoever has to decide."""

from __future__ import annotations

from balloon_plugin.report.of_replay import replay_page
from balloon_plugin.report.of_rows import rows_page
from balloon_plugin.report.of_sweep import sweep_page
from balloon_plugin.report.page import Page, Section, check, write
from balloon_plugin.report.parts import guest
from balloon_plugin.report.timeline import Timeline, timeline

__all__ = [
    "Page",
    "Section",
    "Timeline",
    "check",
    "guest",
    "replay_page",
    "rows_page",
    "sweep_page",
    "timeline",
    "write",
]
