"""One client's conversation in QMP: a message in, the answer to it out.

Pure: bytes and values. What a command does stands in
:mod:`~balloon_plugin.control.commands`; where it is done is for ``run`` to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from balloon_plugin.control.commands import COMMANDS
from balloon_plugin.control.errors import CommandError
from balloon_plugin.control.frames import MAX_MESSAGE, line
from balloon_plugin.control.site import Site
from balloon_plugin.errors import BalloonError

__all__ = ["Monitor", "Run"]

Run = Callable[[Callable[[], Any]], Any]
"""Runs a function where the devices live; returns or raises what it does."""

_MEMBERS = {"execute", "arguments", "id"}


class Monitor:
    """One QMP client's conversation.

    :param site: the guests that it may speak of.
    :param run: runs a function where the devices live. It may raise
        :class:`CommandError` or this package's errors, which the client is told.

    :ivar ready: whether the client has settled its capabilities; only then are there
        commands and events for it.
    """

    def __init__(self, site: Site, run: Run) -> None:
        self._site = site
        self._run = run
        self.ready = False

    def greeting(self) -> bytes:
        """Return what the client reads first."""
        version = self._site.version_info()
        return line({"QMP": {"version": version, "capabilities": []}})

    @staticmethod
    def too_long() -> bytes:
        """Return what a client reads last whose message has no end."""
        return _refusal(f"a command has fewer than {MAX_MESSAGE} bytes")

    def receive(self, message: bytes) -> bytes:
        """Return the answer to one message; empty ones have none."""
        if not message.strip():
            return b""
        try:
            return line(self._reply(json.loads(message)))
        except (ValueError, RecursionError):  # the latter if it is nested too deeply
            return _refusal("this is not JSON")

    def _reply(self, request: object) -> dict[str, Any]:
        if not isinstance(request, dict):
            return {"error": CommandError("a command is a JSON object").as_dict()}
        answer = self._answer(request)
        return answer | {"id": request["id"]} if "id" in request else answer

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"return": self._execute(request)}
        except CommandError as error:
            return {"error": error.as_dict()}
        except BalloonError as error:
            return {"error": CommandError(str(error)).as_dict()}

    def _execute(self, request: dict[str, Any]) -> Any:
        if surplus := sorted(request.keys() - _MEMBERS):
            raise CommandError(f"{surplus[0]!r} is no member of a command")
        name, arguments = request.get("execute"), request.get("arguments", {})
        if name == "qmp_capabilities":
            return self._settle(arguments)
        if not self.ready:
            raise CommandError("send qmp_capabilities first", "CommandNotFound")
        command = COMMANDS.get(name) if isinstance(name, str) else None
        if command is None:
            message = f"there is no command {name!r}; query-commands lists them"
            raise CommandError(message, "CommandNotFound")
        checked = command.check(arguments)
        return self._run(lambda: command.run(self._site, checked))

    def _settle(self, arguments: object) -> dict[str, Any]:
        """Let the client begin; of the capabilities of QMP none is on offer."""
        if self.ready:
            raise CommandError("the capabilities are settled", "CommandNotFound")
        if arguments not in ({}, {"enable": []}):
            raise CommandError("no capability is on offer: leave out 'enable'")
        self.ready = True
        return {}


def _refusal(desc: str) -> bytes:
    return line({"error": CommandError(desc).as_dict()})
