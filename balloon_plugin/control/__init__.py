"""The control socket: running devices, spoken to in QMP.

QMP is what people who run virtual machines know: a greeting, ``qmp_capabilities``, JSON
commands, and events in between. All but ``server`` and ``connection``, which are the
thin edge, and the other end of it, ``client`` and ``watch``, is pure.
"""

from __future__ import annotations

from balloon_plugin.control.client import Client, ask
from balloon_plugin.control.server import ControlServer
from balloon_plugin.control.watch import Watch

__all__ = ["Client", "ControlServer", "Watch", "ask"]
