"""The vhost-user host: devices for front ends such as User-Mode Linux and QEMU."""

from __future__ import annotations

from balloon_plugin.hosts.vhost_user.daemon import Daemon, Slot

__all__ = ["Daemon", "Slot"]
