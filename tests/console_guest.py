"""A real guest, in whatever emulator, and what it says on its console."""

from __future__ import annotations

import queue
import time

from balloon_plugin.boot.guest import Ended, Heard, parse_report
from balloon_plugin.boot.process import GuestProcess

PATIENCE = 120.0
"""Seconds for anything, on a machine that is busy."""

SOCKET = "balloon.sock"


class EndedError(Exception):
    """The guest's process ended while something was expected of it."""


class ConsoleGuest:
    """A guest's process and what it says.

    :param machine: a kind of guest, of which ``balloon_plugin.boot.guest`` tells.
    :param folder: its own, with the balloon's socket in it.
    :param mebibytes: of RAM.
    """

    def __init__(self, machine, folder, mebibytes):
        command = machine.prepare(folder, SOCKET, mebibytes << 20)
        self._heard = queue.SimpleQueue()
        self._process = GuestProcess(command, folder, self._heard.put)
        self.driver = machine.driver
        self.console = []

    def start(self):
        self._process.start()
        return self

    def stop(self):
        self._process.stop()

    def wait(self, *beginnings):
        """Return the next line that begins so; older ones are dropped."""
        end = time.monotonic() + PATIENCE
        while True:
            happening = self._heard.get(timeout=max(0.0, end - time.monotonic()))
            if isinstance(happening, Ended):
                raise EndedError(f"{happening.status}:\n{self.last_words}")
            if isinstance(happening, Heard):
                self.console.append(happening.line)
                if happening.line.startswith(beginnings):
                    return happening.line

    @property
    def last_words(self):
        """What its console said last."""
        return "\n".join(self.console[-60:])

    def boot(self):
        self.wait("GUEST ready")
        return self.hear()

    def hear(self):
        """Return the next report."""
        while True:
            report = parse_report(self.wait("GUEST up="))
            if report is not None:
                return report

    def ask(self, command):
        """Return the report that follows a command."""
        self._process.send(command)
        word = command.split()[0]
        self.wait("GUEST virtio0" if word == "device" else f"GUEST {word}")
        # Reports come at other times, too; the next is about this.
        return self.hear()

    def load(self):
        """Load the driver."""
        self._process.send(f"insmod {self.driver}")
        self.wait("GUEST virtio0")
        return self.hear()

    def power_off(self):
        self._process.send("poweroff")
        return self.end()

    def end(self):
        """Wait for the end of its process and return the exit status."""
        end = time.monotonic() + PATIENCE
        while True:
            happening = self._heard.get(timeout=max(0.0, end - time.monotonic()))
            if isinstance(happening, Ended):
                return happening.status
            self.console.append(happening.line)

    @property
    def memory_held(self):
        """Bytes of the host's memory behind the guest's."""
        return self._process.memory_held()
