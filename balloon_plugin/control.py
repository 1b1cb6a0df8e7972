"""The control socket: a running device, spoken to in QMP.

QMP is what people who run virtual machines know: a greeting, ``qmp_capabilities``, then
JSON commands. :class:`Monitor` is the pure part, one client's bytes in and bytes out;
:class:`ControlServer` is the thin edge, a thread per client that hands every command to
the thread in which the device lives.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol, Self

from balloon_plugin.errors import BalloonError, HostError
from balloon_plugin.events import Answer, Verdict
from balloon_plugin.layouts import PAGE_SIZE
from balloon_plugin.status import Status

__all__ = ["ControlServer", "ControlledDevice", "Monitor", "ask"]

MAX_LINE: Final = 65536
"""Bytes of one command; a client that sends more without a line's end is cut off."""

_GREETING = {
    "QMP": {"version": {"package": "balloon_plugin"}, "capabilities": []},
}


class ControlledDevice(Protocol):
    """What a monitor may do to a device."""

    def set_target(self, num_pages: int) -> Any:
        """Ask for ``num_pages`` pages in the balloon."""

    def query(self) -> Status:
        """Return all that is known of the device."""


class CommandError(Exception):
    """A command that is answered with a QMP error of class ``kind``."""

    def __init__(self, desc: str, kind: str = "GenericError") -> None:
        super().__init__(desc)
        self.kind = kind


# --- commands -----------------------------------------------------------------------


def _balloon(device: ControlledDevice, arguments: dict[str, Any]) -> dict[str, Any]:
    """Set how many bytes of memory the guest is to keep, as QEMU's command does."""
    value = arguments.get("value")
    if type(value) is not int or value < 0:
        raise CommandError("'value' must be the guest's memory in bytes, 0 or more")
    pages = max(0, device.query().ram - value // PAGE_SIZE)
    reply = device.set_target(pages)
    if reply.answer is Answer.REFUSED:
        raise CommandError(f"the target is refused: {reply.reason}")
    return {}


def _query_balloon(
    device: ControlledDevice, _arguments: dict[str, Any]
) -> dict[str, Any]:
    """Return the memory that the guest has now, in bytes."""
    status = device.query()
    if not status.driver:
        raise CommandError("no balloon driver has shown itself", "DeviceNotActive")
    return {"actual": (status.ram - status.balloon_pages) * PAGE_SIZE}


def _query_status(
    device: ControlledDevice, _arguments: dict[str, Any]
) -> dict[str, Any]:
    """Return everything that a query of the device shows; pages are 4 KiB pages."""
    status = device.query()
    plain = asdict(status)
    plain["verdict"] = _plain_verdict(status.verdict)
    plain["gate"]["targets"] = status.gate.targets.value
    return plain


def _query_verdict(
    device: ControlledDevice, _arguments: dict[str, Any]
) -> dict[str, Any]:
    """Return what the policy has concluded, with its evidence."""
    return _plain_verdict(device.query().verdict)


def _query_commands(_device: ControlledDevice, _arguments: dict[str, Any]) -> Any:
    """Return the names of all commands."""
    return [{"name": name} for name in sorted(_COMMANDS)]


def _plain_verdict(verdict: Verdict) -> dict[str, Any]:
    plain = asdict(verdict)
    plain["judgement"] = verdict.judgement.value
    plain["defects"] = [defect.name for defect in verdict.defects]
    return plain


_COMMANDS: Final[dict[str, Callable[[ControlledDevice, dict[str, Any]], Any]]] = {
    "balloon": _balloon,
    "query-balloon": _query_balloon,
    "query-balloon-status": _query_status,
    "query-balloon-verdict": _query_verdict,
    "query-commands": _query_commands,
}


# --- one client, pure ---------------------------------------------------------------


class Monitor:
    """One QMP client's conversation.

    :param run: runs a function of the device where the device lives, and returns what
        it returns.
    """

    def __init__(self, run: Callable[[Callable[[ControlledDevice], Any]], Any]) -> None:
        self._run = run
        self._negotiated = False

    @staticmethod
    def greeting() -> bytes:
        """Return what the client reads first."""
        return _line(_GREETING)

    def receive(self, line: bytes) -> bytes:
        """Return the answer to one line; empty lines have none."""
        if not line.strip():
            return b""
        try:
            request = json.loads(line)
        except ValueError:
            return _line(_error(CommandError("this is not JSON")))
        if not isinstance(request, dict):
            return _line(_error(CommandError("a command is a JSON object")))
        answer = self._answer(request)
        if "id" in request:
            answer["id"] = request["id"]
        return _line(answer)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"return": self._execute(request)}
        except CommandError as error:
            return _error(error)
        except BalloonError as error:
            return _error(CommandError(str(error)))

    def _execute(self, request: dict[str, Any]) -> Any:
        name, arguments = request.get("execute"), request.get("arguments", {})
        if name == "qmp_capabilities":
            self._negotiated = True
            return {}
        if not self._negotiated:
            raise CommandError("send qmp_capabilities first", "CommandNotFound")
        command = _COMMANDS.get(name) if isinstance(name, str) else None
        if command is None:
            message = f"there is no command {name!r}; query-commands lists them"
            raise CommandError(message, "CommandNotFound")
        if not isinstance(arguments, dict):
            raise CommandError("'arguments' must be an object")
        return self._run(lambda device: command(device, arguments))


def _error(error: CommandError) -> dict[str, Any]:
    return {"error": {"class": error.kind, "desc": str(error)}}


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


# --- the edge -----------------------------------------------------------------------


class ControlServer(socketserver.ThreadingUnixStreamServer):
    """Serves monitors on a socket that only its user can open.

    :param path: where the socket is made; it must not exist.
    :param run: as for :class:`Monitor`; called from the clients' threads.
    :raises HostError: if the socket cannot be made.
    """

    daemon_threads = True

    def __init__(
        self, path: Path, run: Callable[[Callable[[ControlledDevice], Any]], Any]
    ) -> None:
        self.run = run
        self.path = path
        before = os.umask(0o177)
        try:
            super().__init__(str(path), _Client)
        except OSError as error:
            reason = error.strerror or error
            message = f"cannot make the control socket {path}: {reason}; name another"
            raise HostError(message) from error
        finally:
            os.umask(before)

    def __enter__(self) -> Self:
        """Begin to serve, in a thread of its own."""
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving and take the socket away."""
        self.shutdown()
        self.server_close()
        self.path.unlink(missing_ok=True)


class _Client(socketserver.StreamRequestHandler):
    server: ControlServer

    def handle(self) -> None:
        monitor = Monitor(self.server.run)
        self.wfile.write(monitor.greeting())
        while (line := self.rfile.readline(MAX_LINE)).endswith(b"\n"):
            self.wfile.write(monitor.receive(line))


def ask(path: Path, command: str, arguments: dict[str, Any] | None = None) -> Any:
    """Send one command to a control socket and return its answer.

    :raises HostError: if nobody listens, or the command fails.
    """
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            stream = client.makefile("rwb")
            for name, values in (("qmp_capabilities", {}), (command, arguments or {})):
                stream.write(_line({"execute": name, "arguments": values}))
            stream.flush()
            stream.readline(MAX_LINE)
            stream.readline(MAX_LINE)
            answer = json.loads(stream.readline())
    except (OSError, ValueError) as error:
        message = f"no device answers on {path} ({error}); give serve's --control path"
        raise HostError(message) from error
    if "error" in answer:
        raise HostError(answer["error"]["desc"])
    return answer["return"]
