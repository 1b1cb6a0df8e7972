"""The control socket: a running device, spoken to in QMP.

QMP is what people who run virtual machines know: a greeting, ``qmp_capabilities``, then
JSON commands. :class:`Frames` and :class:`Monitor` are pure, bytes of one client in and
bytes out; :class:`ControlServer` is the thin edge, a thread per client that hands every
command to the thread in which the device lives.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol, Self

from balloon_plugin.errors import BalloonError, HostError
from balloon_plugin.events import Answer, TargetReply, Verdict
from balloon_plugin.hosts.sockets import SocketFile
from balloon_plugin.layouts import PAGE_SIZE
from balloon_plugin.status import Status

__all__ = ["ControlServer", "ControlledDevice", "Frames", "Monitor", "ask"]

_log = logging.getLogger(__name__)

MAX_MESSAGE: Final = 65536
"""Bytes of one command; a client whose command has no end by then is cut off."""

_REST: Final = 1.0
"""Seconds to accept nobody if it fails: most likely there are no descriptors left."""

_PATIENCE: Final = 10.0
"""Seconds that a device may take to answer; it takes milliseconds."""

_GREETING = {
    "QMP": {"version": {"package": "balloon_plugin"}, "capabilities": []},
}


class ControlledDevice(Protocol):
    """What a monitor may do to a device."""

    def set_target(self, num_pages: int) -> TargetReply:
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
    """Set how many bytes of memory the guest is to keep, as QEMU's command does.

    QEMU returns nothing. Here it is told whether the target has to wait (rule 9).
    """
    value = arguments.get("value")
    if type(value) is not int or value < 0:
        raise CommandError("'value' must be the guest's memory in bytes, 0 or more")
    ram = device.query().ram
    if not ram:
        message = "the guest's memory is not known before a front end connects"
        raise CommandError(message, "DeviceNotActive")
    reply = device.set_target(max(0, ram - value // PAGE_SIZE))
    if reply.answer is Answer.REFUSED:
        raise CommandError(f"the target is refused: {reply.reason}")
    return asdict(reply) | {"answer": reply.answer.value}


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


class Frames:
    """Cuts what a client sends into messages, by their brackets.

    QMP knows no other end of a message: QEMU's own client sends none, people at a
    terminal send new lines, also in the middle of one. What stands outside brackets, or
    breaks off in a string, is a message up to the end of the line, and no JSON.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._depth = 0
        self._quoted = self._escaped = False

    def __len__(self) -> int:
        """Return the size of a message whose end has not come."""
        return len(self._pending)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes as they come; yield the messages that are complete with them."""
        for byte in data:
            self._pending.append(byte)
            if self._ends(byte):
                yield self.take()

    def take(self) -> bytes:
        """Return what has come of a message, and expect the next."""
        message = bytes(self._pending)
        self._pending.clear()
        self._depth = 0
        self._quoted = self._escaped = False
        return message

    def _ends(self, byte: int) -> bool:
        if self._quoted:
            self._quoted = self._escaped or byte != _QUOTE
            self._escaped = byte == _BACKSLASH and not self._escaped
            return byte == _NEWLINE
        if byte == _QUOTE:
            self._quoted = True
        elif byte in b"[{":
            self._depth += 1
        elif byte in b"]}":
            self._depth -= 1
            return self._depth <= 0
        return byte == _NEWLINE and not self._depth


_QUOTE, _BACKSLASH, _NEWLINE = b'"\\\n'


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

    def receive(self, message: bytes) -> bytes:
        """Return the answer to one message; empty ones have none."""
        if not message.strip():
            return b""
        try:
            return _line(self._reply(json.loads(message)))
        except (ValueError, RecursionError):  # the latter if it is nested too deeply
            return _line(_error(CommandError("this is not JSON")))

    def _reply(self, request: object) -> dict[str, Any]:
        if not isinstance(request, dict):
            return _error(CommandError("a command is a JSON object"))
        answer = self._answer(request)
        return answer | {"id": request["id"]} if "id" in request else answer

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"return": self._execute(request)}
        except CommandError as error:
            return _error(error)
        except BalloonError as error:
            return _error(CommandError(str(error)))
        except Exception as error:  # noqa: BLE001 - ours or a plugin's; here to be heard
            _log.exception("a control command failed")
            return _error(CommandError(f"it failed: {type(error).__name__}: {error}"))

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


class ControlServer:
    """Serves monitors on a socket that only its user can open.

    A context manager: it serves inside, and has no client and no socket any more
    afterwards.

    :param path: where the socket is made.
    :param run: as for :class:`Monitor`; called from the clients' threads.
    :raises HostError: if something is alive there, or the socket cannot be made.
    """

    def __init__(
        self, path: Path, run: Callable[[Callable[[ControlledDevice], Any]], Any]
    ) -> None:
        self._run = run
        self._file = SocketFile(path)
        self._file.socket.setblocking(True)  # noqa: FBT003 - named so by Python
        self._closing = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._clients: dict[socket.socket, threading.Thread] = {}

    def __enter__(self) -> Self:
        """Begin to serve, in a thread of its own."""
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up on all clients and take the socket away."""
        self._closing.set()
        self._file.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._acceptor.join()
        self._file.close()
        for client, thread in list(self._clients.items()):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._file.socket.accept()
            except OSError:
                self._closing.wait(_REST)
                continue
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._clients[client] = thread
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):  # it hung up
            _converse(client, Monitor(self._run))
        del self._clients[client]


def _converse(client: socket.socket, monitor: Monitor) -> None:
    """Answer one client until it goes."""
    frames = Frames()
    client.sendall(monitor.greeting())
    while data := client.recv(MAX_MESSAGE):
        for message in frames.feed(data):
            client.sendall(monitor.receive(message))
        if len(frames) >= MAX_MESSAGE:
            error = CommandError(f"a command has fewer than {MAX_MESSAGE} bytes")
            client.sendall(_line(_error(error)))
            return
    client.sendall(monitor.receive(frames.take()))


# --- the other end ------------------------------------------------------------------


def ask(path: Path, command: str, arguments: dict[str, Any] | None = None) -> Any:
    """Send one command to a control socket and return its answer.

    :raises HostError: if nobody listens, or the command fails.
    """
    try:
        answer = _exchange(path, command, arguments or {})
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        message = f"no device answers on {path} ({reason}); give serve's --control path"
        raise HostError(message) from error
    if "error" in answer:
        raise HostError(answer["error"]["desc"])
    return answer["return"]


def _exchange(path: Path, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Send one command and return the answer to it, without looking into it."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_PATIENCE)
        client.connect(str(path))
        with client.makefile("rwb") as stream:
            for name, values in (("qmp_capabilities", {}), (command, arguments)):
                stream.write(_line({"execute": name, "arguments": values}))
            stream.flush()
            greeting, _, line = (stream.readline() for _ in range(3))
    if not (greeting.startswith(b'{"QMP"') and line):
        raise ConnectionError("what listens there is no control socket")
    answer: dict[str, Any] = json.loads(line)
    return answer
