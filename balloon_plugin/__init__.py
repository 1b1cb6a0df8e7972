"""A virtio memory balloon for any Python host, with policies that judge the driver."""

from __future__ import annotations

from balloon_plugin.calls import Device
from balloon_plugin.errors import BalloonError, HostError, PluginError
from balloon_plugin.features import DeviceOptions
from balloon_plugin.hookspecs import Host, hookimpl
from balloon_plugin.manager import change_policy, find_policies, make_device

__all__ = [
    "BalloonError",
    "Device",
    "DeviceOptions",
    "Host",
    "HostError",
    "PluginError",
    "change_policy",
    "find_policies",
    "hookimpl",
    "make_device",
]

__version__ = "0.1.0"
