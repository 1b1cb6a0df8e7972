"""Shadows beside a live guest: each in a process of its own, fed through a pipe.

The thread of the device only writes lines into pipes that never block it, and reads
what has come back. A shadow that does not keep up is ended and says so; the guest does
not notice.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from balloon_plugin import __version__
from balloon_plugin.calls import Device, PolicyCalls
from balloon_plugin.errors import HostError
from balloon_plugin.events import (
    Answer,
    DeviceReset,
    Event,
    Gate,
    GateChanged,
    InhibitionChanged,
    Judgement,
    PluginFailed,
    PolicyChanged,
    ShadowDiverged,
    ShadowGuesses,
    StateLoaded,
    TargetAnswered,
    Verdict,
)
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.manager import make_policy
from balloon_plugin.shadow import ShadowStatus, is_policy_event
from balloon_plugin.trace import check_new
from balloon_plugin.trace.lines import (
    Concluded,
    Header,
    Moment,
    decode_moment,
    encode,
)

__all__ = ["Watch", "watching"]

MOST_WAITING: Final = 4 << 20
"""Bytes that wait for one shadow; some thousands of buffers, or hours of an idle guest.

It bounds the memory that a shadow can cost, and with it how old its news can be.
"""

PATIENCE: Final = 10.0
"""Seconds in which a shadow has to make something of what it was sent.

Its process takes a tenth of that to start on a machine that is busy.
"""

_PIPE: Final = 1 << 20
"""Bytes that a pipe should hold: the most that Linux gives an ordinary user."""

_CHUNK: Final = 1 << 16

_TOLD: Final = (
    GateChanged,
    InhibitionChanged,
    PolicyChanged,
    StateLoaded,
    TargetAnswered,
)
"""What shadows need to know besides what policies observe."""

_UNKNOWN: Final = ShadowStatus(
    policy="",
    events=0,
    verdict=Verdict(Judgement.UNDECIDED, ""),
    gate=Gate(0, reclaim=False, targets=Answer.DEFERRED),
)


class Watch:
    """The shadows of one device, as an observer; made by :func:`watching`."""

    def __init__(self, device: Device, policies: list[str]) -> None:
        self._device = device
        self._shadows: list[_Process] = []
        self._started = False
        try:
            for policy in policies:
                self._shadows.append(_Process(policy, self._tell))
        except OSError as error:
            self.close()
            raise HostError(
                f"no process can be started for the shadow {policy}: {error.strerror}; "
                "let fewer look on, or allow more processes and open files"
            ) from error

    def status(self, patience: float = 0.0) -> list[ShadowStatus]:
        """Return what is known of each shadow, in the order in which they were named.

        :param patience: seconds to wait at the most for those that are behind.
        """
        end = time.monotonic() + patience
        for shadow in self._shadows:
            shadow.catch_up(end)
        return [shadow.status for shadow in self._shadows]

    @hookimpl
    def balloon_event(self, event: Event) -> None:
        """Send an event to all shadows, and take what they have made of others."""
        if not (is_policy_event(event) or isinstance(event, _TOLD)):
            return
        line = encode(Moment(0, event))
        if not self._started:
            self._started = True
            line = encode(self._header()) + line
        counts = is_policy_event(event)
        for shadow in self._shadows:
            shadow.send(line, counts=counts)

    def close(self) -> None:
        """End all shadows."""
        for shadow in self._shadows:
            shadow.close()

    def _header(self) -> Header:
        live = PolicyCalls(self._device.plugins, "")
        return Header(package=__version__, policy="", offers=live.features())

    def _tell(self, event: Event) -> None:
        self._device.observers.emit(event)


class _Process:
    """One shadow's process, and what is known of it."""

    def __init__(self, policy: str, tell: Callable[[Event], None]) -> None:
        self.status = replace(_UNKNOWN, policy=policy)
        self._tell = tell
        self._sent = self._seen = 0
        self._since = time.monotonic()
        self._waiting = bytearray()
        self._partial = b""
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "balloon_plugin.watcher", policy],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # Ctrl-C at a terminal is for the daemon, which ends its shadows.
            process_group=0,
        )
        assert self._process.stdin is not None  # noqa: S101 - they are pipes
        assert self._process.stdout is not None  # noqa: S101
        self._in = self._process.stdin.fileno()
        self._out = self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _PIPE)

    def send(self, line: bytes, *, counts: bool) -> None:
        """Send a line, or keep it until there is room for it."""
        if self.status.dropped:
            return
        if self._sent == self._seen:
            self._since = time.monotonic()
        self._sent += 1
        self._waiting += line
        if counts:
            self.status = replace(self.status, events=self.status.events + 1)
        self.exchange()

    def exchange(self) -> None:
        """Write and read what can be without waiting; end a shadow that is behind."""
        if self.status.dropped:
            return
        try:
            self._write()
            while chunk := self._read():
                self._take(chunk)
        except OSError:
            # One that ended keeps its exit code; one that only hung up must not be
            # waited for.
            self._process.kill()
            self._drop(f"its process ended (exit code {self._process.wait()})")
        if len(self._waiting) > MOST_WAITING:
            self._drop(f"it fell behind by {len(self._waiting)} bytes")
        elif self._behind and time.monotonic() - self._since > PATIENCE:
            self._drop(f"it made nothing of an event in {PATIENCE:g} s")

    @property
    def _behind(self) -> bool:
        return self._seen < self._sent and not self.status.dropped

    def catch_up(self, end: float) -> None:
        """Exchange until nothing is left, or it is too late."""
        self.exchange()
        while self._behind and (left := end - time.monotonic()) > 0:
            writes = [self._in] if self._waiting else []
            select.select([self._out], writes, [], left)
            self.exchange()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        # Not to be read to their ends, which somebody else may hold open.
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None  # noqa: S101 - it was made so
            pipe.close()
        self._process.wait()

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._waiting:
                del self._waiting[: os.write(self._in, self._waiting)]

    def _read(self) -> bytes:
        try:
            chunk = os.read(self._out, _CHUNK)
        except BlockingIOError:
            return b""
        if not chunk:
            raise BrokenPipeError
        return chunk

    def _take(self, chunk: bytes) -> None:
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        for line in lines:
            if line.isdigit():
                self._seen = int(line)
            else:
                moment = decode_moment(line)
                self._seen = moment.at
                self._learn(moment)
        if lines:
            self._since = time.monotonic()

    def _learn(self, moment: Moment) -> None:
        status = self.status
        match moment.entry:
            case Concluded(verdict=verdict):
                self.status = replace(status, verdict=verdict)
            case GateChanged(gate=gate):
                self.status = replace(status, gate=gate)
            case DeviceReset():
                self.status = replace(status, diverged=None, guesses=None)
            case ShadowDiverged() as diverged:
                self.status = replace(
                    status,
                    divergences=status.divergences + 1,
                    diverged=status.diverged or diverged,
                )
                self._tell(diverged)
            case ShadowGuesses() as guesses:
                self.status = replace(status, guesses=guesses)
                self._tell(guesses)
            case PluginFailed() as failed:
                self._tell(failed)

    def _drop(self, why: str) -> None:
        if not self.status.dropped:
            self.status = replace(self.status, dropped=why)
            self._process.kill()
            name = f"shadow {self.status.policy}"
            self._tell(PluginFailed(name, "policy_observe", why))


@contextlib.contextmanager
def watching(device: Device, *policies: str) -> Iterator[Watch]:
    """Let policies look on at a device as shadows, until the context is left.

    Enter it before the host realizes the device. What the shadows would do otherwise
    is told to the device's observers, and what is known of them is in
    :meth:`Watch.status`. One that raises, hangs or crashes has no say any more, which
    a ``PluginFailed`` tells; the guest does not notice.

    :param device: as from :func:`balloon_plugin.make_device`.
    :param policies: names of installed policies with their options, each of which gets
        a process of its own.
    :raises PluginError: if one of them cannot be made.
    :raises HostError: if the device is realized already, or no process can be started.
    """
    check_new(device)
    for policy in policies:
        make_policy(policy)
    watch = Watch(device, list(policies))
    device.plugins.register(watch)
    try:
        yield watch
    finally:
        device.plugins.unregister(watch)
        watch.close()
