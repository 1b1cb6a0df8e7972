"""A daemon that is killed again and again, and a guest that does not notice."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from command_line import command
from console_guest import PATIENCE, SOCKET

from balloon_plugin import control

MEBIBYTE = 256
"""Pages in one."""

KEPT = 16
"""MiB that a guest holds while its balloon comes and goes."""


def until(what):
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


WITHOUT_PACKED = """
import sys
from balloon_plugin.cli import main
from balloon_plugin.hosts.vhost_user import protocol
protocol.TRANSPORT &= ~(1 << 34)
sys.exit(main())
"""
"""A daemon as it was before it knew of packed rings, which newer kernels prefer."""


class Mortal:
    """The daemon in a process of its own, with its state, socket and log in a folder.

    :param words: more of its command line.
    :ivar socket: where it listens for a front end.
    :ivar size: what its status calls the size of a balloon.
    :ivar packed: whether the next daemon knows of packed rings.
    """

    def __init__(self, folder, *words):
        self._folder = folder
        self._words = words
        self.size = "actual"
        self.socket = folder / SOCKET
        self.packed = True
        self._log = (folder / "log").open("a")
        self.start()

    def start(self):
        words = ["serve", "--socket", SOCKET, "--state", ".", "--control", "control"]
        words += self._words
        self._process = subprocess.Popen(  # noqa: S603 - it is our own
            command(*words)
            if self.packed
            else [sys.executable, "-c", WITHOUT_PACKED, *words],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        while ": waiting for a front end" not in self._process.stdout.readline():
            assert self._process.poll() is None

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def close(self):
        self.kill()
        self._log.close()

    def ask(self, command, **values):
        return control.ask(self._folder / "control", command, **values)

    def inflate(self, pages):
        """Ask for a balloon of so many pages."""
        self.ask("balloon", value=(self.status["ram"] - pages) * 4096)

    def reaches(self, pages):
        """Wait until so many pages are in the balloon."""
        until(lambda: self.status[self.size] == pages)

    @property
    def has_record(self):
        """Whether it records what is in flight with the front end (INFLIGHT_SHMFD)."""
        maps = Path(f"/proc/{self._process.pid}/maps").read_text()
        return "/memfd:inflight" in maps

    @property
    def status(self):
        return self.ask("query-balloon-status")


class Relayed:
    """The relay in a process of its own, which lives as long as the guest.

    :param front: the socket for the guest.
    :param mortal: the daemon.
    """

    def __init__(self, front, mortal):
        words = ("relay", "--socket", front, "--to", mortal.socket.parent)
        self._process = subprocess.Popen(  # noqa: S603 - it is our own
            command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert ": waiting for a front end" in self._process.stdout.readline()

    def end(self):
        """End it, and return what is in its log."""
        self._process.terminate()
        _, log = self._process.communicate(timeout=PATIENCE)
        assert self._process.returncode == 0
        return log

    def close(self):
        self._process.kill()
        self._process.communicate()


def die_and_go_on(mortal, guest, deaths):
    """Kill the daemon in the middle of all it does; nothing may be lost by that.

    The guest holds KEPT MiB, and has a driver that was found good.
    """
    chance = random.Random(7)  # noqa: S311 - the same each time
    last = mortal.status["requested"]
    mortal.reaches(last)
    inflated = guest.ask("device").inflated
    for _ in range(deaths):
        pages = chance.randrange(8, 64) * MEBIBYTE
        mortal.inflate(pages)
        # In the middle of what it asked for, more often than not.
        time.sleep(chance.choice((0.0, 0.005, 0.01, 0.02)))
        mortal.kill()
        mortal.start()
        until(lambda: mortal.status["driver"])
        mortal.reaches(pages)

        status, report = mortal.status, guest.ask("device")
        assert status["ballooned"] == status["reclaimed"] == pages
        assert guest.memory_held <= (status["ram"] - pages) * 4096
        assert report.inflated - report.deflated == pages
        # Nothing is tested again.
        inflated, last = inflated + max(0, pages - last), pages
        assert report.inflated == inflated
        assert status["verdict"]["judgement"] == "good"
        assert (report.kept, report.lost) == (KEPT * MEBIBYTE, 0)
    mortal.inflate(0)
    mortal.reaches(0)
