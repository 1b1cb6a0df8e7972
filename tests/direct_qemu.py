"""A QEMU that connects to a daemon in another folder, and its own control socket."""

from __future__ import annotations

import os

from console_guest import SOCKET

from balloon_plugin.control.client import Client


class Direct:
    """A QEMU that connects to the daemon itself, with nothing between them."""

    def __init__(self, machine, folder):
        self._machine = machine
        self._folder = folder
        self.driver = machine.driver

    def prepare(self, folder, _socket, memory):
        socket = os.path.relpath(self._folder / SOCKET, folder)
        return self.changed(self._machine.prepare(folder, socket, memory))

    def changed(self, words):
        return words


class Monitor(Client):
    """QEMU's own control socket, which ours would not take for a daemon's."""

    @staticmethod
    def _check(greeting):
        assert "qemu" in greeting["QMP"]["version"]
