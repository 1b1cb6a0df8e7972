"""The two families of errors that people see; a guest's mistakes are not among them.

Whoever embeds the device or writes a plugin for it can err, and then gets an exception
whose message says what to do. A guest that errs never raises: it leaves a
:class:`~balloon_plugin.events.GuestFault` behind and the device goes on.
"""

from __future__ import annotations

__all__ = ["BalloonError", "HostError", "PluginError"]


class BalloonError(Exception):
    """Base of every error that this package raises on purpose."""


class HostError(BalloonError):
    """The host, its environment or its user asked for something impossible.

    Raised at once, with a sentence that says what to do: a socket that exists already,
    a hook called before ``realize``, an unknown guest, a missing kernel.
    """


class PluginError(BalloonError):
    """A plugin cannot be loaded or breaks its contract.

    Raised while plugins are found, made and registered. A policy that fails later,
    while a guest runs, does not raise: its gate is closed and the guest lives on.
    """
