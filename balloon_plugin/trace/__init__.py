"""Traces: all that happened to one device, in a file that can be replayed."""

from __future__ import annotations

from balloon_plugin.trace.files import create, read
from balloon_plugin.trace.lines import Concluded, Header, Moment, decode, encode
from balloon_plugin.trace.recorder import Recorder, check_new, recording

__all__ = [
    "Concluded",
    "Header",
    "Moment",
    "Recorder",
    "check_new",
    "create",
    "decode",
    "encode",
    "read",
    "recording",
]
