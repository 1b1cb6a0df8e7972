"""What a control socket speaks for: the guests of one daemon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from balloon_plugin.control.errors import CommandError
from balloon_plugin.events import TargetReply
from balloon_plugin.status import Status

__all__ = ["PACKAGE", "PERIPHERAL", "ControlledDevice", "Site"]

PACKAGE: Final = "balloon_plugin"
"""Who speaks: QEMU says ``qemu-`` and a version, or nothing."""

PERIPHERAL: Final = "/machine/peripheral/"
"""Where QEMU's object model keeps the devices that have a name."""

_FEW: Final = 8
"""Guests that a sentence can name."""


class ControlledDevice(Protocol):
    """What commands may do to a device; :class:`balloon_plugin.Device` is one."""

    def set_target(self, num_pages: int) -> TargetReply:
        """Ask for ``num_pages`` pages in the balloon."""

    def query(self) -> Status:
        """Return all that is known of the device."""

    def set_stats_interval(self, seconds: int) -> None:
        """Ask the driver for statistics every so many seconds, or never (0)."""

    def set_inhibited(self, reason: str | None) -> None:
        """Forbid discards for a reason, or allow them again (``None``)."""

    def start_hinting(self) -> int:
        """Ask the driver for hints at its free pages; return the command's id."""

    def stop_hinting(self) -> None:
        """Let the driver use its hinted pages again."""


@dataclass(frozen=True, slots=True)
class Site:
    """The guests behind one control socket.

    :ivar guests: the devices by the names of their guests, which have no ``/``.
    :ivar version: of this package, ``major.minor.micro``.
    :ivar change_policy: lets another policy judge a guest; called with the guest's name
        and that of the policy, with its options.
    :ivar now: returns the time of day, in seconds since 1970.
    :ivar about: returns what a query of a guest shows besides its device, by its name.
    """

    guests: Mapping[str, ControlledDevice]
    version: str
    change_policy: Callable[[str, str], None]
    now: Callable[[], float]
    about: Callable[[str], dict[str, Any]] = lambda _guest: {}

    def find(self, name: str | None) -> str:
        """Return the name of the guest that is meant.

        :param name: its name or its QOM path, ``None`` if there is only one.
        :raises CommandError: if it is not clear which guest that is.
        """
        if name is None:
            if len(self.guests) == 1:
                return next(iter(self.guests))
            raise CommandError(f"a guest must be named ('id'); {self._served()}")
        name = name.removeprefix(PERIPHERAL)
        if name not in self.guests:
            message = f"there is no guest {name!r}; {self._served()}"
            raise CommandError(message, "DeviceNotFound")
        return name

    def _served(self) -> str:
        """Return which guests there are, or where they are listed if they are many."""
        if len(self.guests) > _FEW:
            return "query-balloon-guests lists them"
        return f"the daemon serves {', '.join(self.guests)}"

    def version_info(self) -> dict[str, Any]:
        """Return the version in the form of QEMU's."""
        numbers = map(int, self.version.split("."))
        # Clients look for numbers under this name; whose they are, the package says.
        qemu = dict(zip(("major", "minor", "micro"), numbers, strict=True))
        return {"qemu": qemu, "package": PACKAGE}
