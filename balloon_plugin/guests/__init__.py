"""Guest drivers, right and wrong, written apart from the device that serves them."""

from __future__ import annotations

from balloon_plugin.guests.guest import Guest
from balloon_plugin.guests.profiles import GUESTS, find
from balloon_plugin.guests.traits import Conditions, DriverProfile, GuestProfile

__all__ = ["GUESTS", "Conditions", "DriverProfile", "Guest", "GuestProfile", "find"]
