"""QEMU's object model, as far as clients use it on a balloon: paths and properties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from balloon_plugin.control.arguments import Arguments
from balloon_plugin.control.errors import CommandError
from balloon_plugin.control.site import PERIPHERAL, ControlledDevice, Site
from balloon_plugin.control.statistics import guest_stats

__all__ = ["qom_get", "qom_list", "qom_set"]


@dataclass(frozen=True, slots=True)
class _Property:
    """A property of a balloon.

    :ivar kind: its type, in QEMU's word.
    :ivar get: returns its value.
    :ivar set: changes it, ``None`` if it cannot be changed.
    """

    kind: str
    get: Callable[[Site, ControlledDevice], Any]
    set: Callable[[ControlledDevice, Any], None] | None = None


def _set_interval(device: ControlledDevice, value: object) -> None:
    if type(value) is not int:
        raise CommandError("'value' must be a whole number of seconds, 0 for never")
    device.set_stats_interval(value)


_PROPERTIES: Final = {
    "guest-stats": _Property(
        "guest statistics", lambda site, device: guest_stats(device.query(), site.now())
    ),
    "guest-stats-polling-interval": _Property(
        "int", lambda _site, device: device.query().stats_interval, _set_interval
    ),
}


def qom_list(site: Site, arguments: Arguments) -> Any:
    """Return what is under a path: the guests, or the properties of one."""
    if arguments["path"].rstrip("/") == PERIPHERAL.rstrip("/"):
        kind = "child<virtio-balloon-device>"
        return [{"name": name, "type": kind} for name in site.guests]
    site.find(arguments["path"])
    return [{"name": name, "type": each.kind} for name, each in _PROPERTIES.items()]


def _property(arguments: Arguments) -> _Property:
    name = arguments["property"]
    if name not in _PROPERTIES:
        raise CommandError(f"there is no property {name!r}; qom-list lists them")
    return _PROPERTIES[name]


def qom_get(site: Site, arguments: Arguments) -> Any:
    """Return the value of a property."""
    device = site.guests[site.find(arguments["path"])]
    return _property(arguments).get(site, device)


def qom_set(site: Site, arguments: Arguments) -> Any:
    """Change the value of a property."""
    device = site.guests[site.find(arguments["path"])]
    change = _property(arguments).set
    if change is None:
        raise CommandError(f"the property {arguments['property']!r} cannot be changed")
    change(device, arguments["value"])
    return {}
