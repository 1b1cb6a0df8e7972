"""Both ends of a control socket, for tests of one of them."""

from __future__ import annotations

import json
import os
import socket
import threading
from string import ascii_lowercase

from fakes import RAM_PAGES, ScriptedPolicy, follow, rig

from balloon_plugin import change_policy
from balloon_plugin.control import ControlServer
from balloon_plugin.control.monitor import Monitor
from balloon_plugin.control.site import Site

RAM = RAM_PAGES * 4096
NOW = 1_000_000.5
"""The time of day in a conversation without a socket."""

READY = b'{"execute": "qmp_capabilities"}\n'


def monitor_of(*devices, ready=True, about=None):
    """Return a conversation without a socket; the guests are called a, b, ..."""

    def change(name, policy):
        change_policy(site.guests[name], policy)

    guests = dict(zip(ascii_lowercase, devices, strict=False))
    more = {} if about is None else {"about": about}
    site = Site(guests, "1.2.3", change, lambda: NOW, **more)
    monitor = Monitor(site, lambda function: function())
    if ready:
        monitor.receive(READY)
    return monitor


def say(monitor, command, **arguments):
    """Return the answer to one command, without what it is wrapped in."""
    answer = json.loads(monitor.receive(said(command, **arguments)))
    return answer["return"] if "return" in answer else answer["error"]


def said(command, **arguments):
    """Return a command as it is sent."""
    return json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"


class Served:
    """Guests behind a control socket, whose devices take turns as in a daemon.

    :ivar guests: the rig of each guest by its name.
    """

    def __init__(self, path, *names):
        self.path = path
        self.guests = {name: rig(ScriptedPolicy(follow)) for name in names or "a"}
        self._turns = threading.RLock()
        devices = {name: made.device for name, made in self.guests.items()}
        self.server = ControlServer(path, devices, self.run)

    def __enter__(self):
        self.server.__enter__()
        return self

    def __exit__(self, *error):
        self.server.__exit__(*error)

    def run(self, function):
        """Do something in the devices' thread."""
        with self._turns:
            return function()

    def write_actual(self, actual, name="a"):
        """Let a driver say how large its balloon is."""
        self.run(lambda: self.guests[name].write_actual(actual))


class Client:
    """A client that shows everything, raw."""

    def __init__(self, path, *, ready=False):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(os.fspath(path))
        self._stream = self.socket.makefile("rb")
        if ready:
            self.send(READY)
            self.hear()
            self.hear()

    def send(self, data):
        self.socket.sendall(data)

    def hear(self):
        """Return the next message, ``None`` if nobody is there any more."""
        try:
            line = self._stream.readline()
        except ConnectionResetError:
            return None
        return json.loads(line) if line else None

    def close(self):
        self._stream.close()
        self.socket.close()
