"""What the tests of the command line share, besides fixtures."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import vhost_user_traces as traces
from vhost_user_front_end import FrontEnd

PAGE = 4096
RAM = traces.RAM_SIZE // PAGE
"""Pages of the guest's RAM."""


def command(*words):
    """Return a command line that runs us as a process of its own."""
    return [sys.executable, "-m", "balloon_plugin", *map(str, words)]


class Guest(FrontEnd):
    """A front end of a daemon in another process, whose guest has 1 MiB of RAM."""

    def __init__(self, path):
        super().__init__(path, SimpleNamespace(step=lambda: False))
        self.path = path
        self.send(*traces.UML_CONNECT, *traces.uml_probe())

    def reconnect(self):
        """Bring the same driver to another daemon."""
        self.socket.close()
        self.connect(self.path)
        self.send(*traces.UML_CONNECT)
        for sent in traces.uml_probe():
            queue = sent.payload[0]
            again = traces.state(queue, self.used(queue) if queue < 2 else 0)
            base = sent.request == "SET_VRING_BASE"
            self.send(sent._replace(payload=again) if base else sent)


def until(what, timeout=20):
    """Wait until something is so."""
    end = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())
