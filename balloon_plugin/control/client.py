"""The other end of a control socket, for our own commands; it blocks.

Programs of others use the package ``qemu.qmp``, or any client of QMP.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any, Final, Self

from balloon_plugin.control import site
from balloon_plugin.control.frames import line
from balloon_plugin.errors import HostError

__all__ = ["PATIENCE", "Client", "ask"]

PATIENCE: Final = 10.0
"""Seconds that a daemon may take to answer; it takes milliseconds."""

_LONGEST: Final = 1 << 24
"""Bytes of one answer: a hundred thousand guests are listed in fewer."""

_STRANGER: Final = "what listens there is no control socket"


class Client:
    """One conversation with a control socket; a context manager.

    :param path: serve's ``--control`` path.
    :param patience: seconds that it may take to answer.
    :raises HostError: if no control socket is there, or the conversation breaks off.
    """

    def __init__(self, path: Path, patience: float = PATIENCE) -> None:
        self._path = path
        self._patience = patience
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(patience)
        self._stream = self._socket.makefile("rb")
        try:
            self._socket.connect(str(path))
            self._check(self._hear())
            self._exchange("qmp_capabilities", {})
        except OSError as error:
            self.close()
            raise self._lost(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Carry out one command and return its answer.

        :raises HostError: if the conversation breaks off, or the command fails.
        """
        try:
            answer = self._exchange(command, arguments)
        except OSError as error:
            raise self._lost(error) from error
        if "error" in answer:
            raise HostError(answer["error"]["desc"])
        return answer["return"]

    def _exchange(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._socket.sendall(line({"execute": command, "arguments": arguments}))
        end = time.monotonic() + self._patience
        while "event" in (message := self._hear()):
            if time.monotonic() > end:
                raise TimeoutError("there are events, and no answer")
        return message

    @staticmethod
    def _check(greeting: dict[str, Any]) -> None:
        """See who it is: QEMU would do some of our commands, and answer otherwise."""
        match greeting:
            case {"QMP": {"version": {"package": site.PACKAGE}}}:
                return
        raise ConnectionError(_STRANGER)

    def _hear(self) -> dict[str, Any]:
        heard = self._stream.readline(_LONGEST)
        if not heard:
            raise ConnectionError("it hung up")
        if len(heard) == _LONGEST:
            raise ConnectionError(_STRANGER)
        try:
            message = json.loads(heard)
        except (ValueError, RecursionError):  # the latter if it is nested too deeply
            message = None
        if not isinstance(message, dict):
            raise ConnectionError(_STRANGER)
        return message

    def _lost(self, error: Exception) -> HostError:
        reason = getattr(error, "strerror", None) or error
        advice = "give serve's --control path"
        if isinstance(error, PermissionError):
            advice = "only the user who started serve may talk to it"
        return HostError(f"no device answers on {self._path} ({reason}); {advice}")


def ask(path: Path, command: str, **arguments: Any) -> Any:
    """Send one command to a control socket and return its answer.

    :raises HostError: if nobody listens, or the command fails.
    """
    with Client(path) as client:
        return client.execute(command, **arguments)
