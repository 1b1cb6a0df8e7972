"""A relay for front ends that connect only once, to daemons that may die."""

from __future__ import annotations

from balloon_plugin.hosts.relay.relay import Relay

__all__ = ["Relay"]
