"""A guest's process: started apart, heard line by line, and surely ended.

Emulators leave children behind: User-Mode Linux has some of its own and one for each
process of the guest. So a guest gets a session and process group of its own, which is
killed as a whole as soon as its first process is gone, and a keeper: a shell that waits
for the end of our process, however it comes, and then clears up in our stead.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Final, cast

from balloon_plugin.boot.guest import Ended, Happening, Heard
from balloon_plugin.errors import HostError

__all__ = ["GuestProcess"]

MAX_LINE: Final = 4096
"""Bytes of one line; a guest may print more, but not fill our memory with it."""

_BLOCK: Final = 512
"""Bytes in the unit of ``st_blocks``, whatever the file system's own is."""

_HALTED: Final = "reboot: System halted"
"""The last words of a kernel that has nothing to switch off: of User-Mode Linux.

It still takes its timer's signals while it leaves, and may die of one on a busy machine
(SIGABRT, seen with 6.1). The guest ended in order all the same.
"""

_KEEPER: Final = 'read -r _; kill -KILL "-$0"; rm -rf -- "$1"'
"""Its input is a pipe from us, on which nothing comes but its end."""


class GuestProcess:
    """One guest, running from :meth:`start` to its own end or to :meth:`stop`.

    :param command: the program and its arguments, started in ``folder``.
    :param folder: its private folder, removed by the keeper if we cannot.
    :param post: called with each :class:`Heard` and at last with :class:`Ended`, from
        other threads.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        folder: Path,
        post: Callable[[Happening], None],
    ) -> None:
        self._command = command
        self._folder = folder
        self._halted = False
        self._post = post
        self._started: Future[subprocess.Popen[bytes]] = Future()
        self._unreaped = threading.Lock()
        self._life = threading.Thread(target=self._live, name="guest")

    def start(self) -> None:
        """Start it.

        In a thread, because Ctrl-C interrupts the main one: there must be no moment in
        which the guest runs and nobody knows.

        :raises HostError: if the program cannot be started.
        """
        self._life.start()
        self._started.result()

    def stop(self) -> None:
        """End the guest and all its processes now, if they are still there."""
        if self._life.ident is not None:
            if self._started.exception() is None:
                self._kill(self._started.result())
            self._life.join()

    def send(self, command: str) -> None:
        """Type a line on the guest's console; without effect if nobody reads it."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: closed
            _raw(self._started.result().stdin).write(command.encode() + b"\n")

    def memory_held(self) -> int | None:
        """Return the bytes of host memory behind the guest's, ``None`` if unknown.

        Counted in the blocks of the file that is its memory: holes are no part of that.
        """
        try:
            files = list(_nameless_files(self._started.result().pid))
        except OSError:
            return None  # it has just ended
        if not files:
            return None
        return max(files, key=lambda file: file.st_size).st_blocks * _BLOCK

    def _live(self) -> None:
        try:
            process, keeper = self._start_both()
        except HostError as error:
            self._started.set_exception(error)
            return
        self._started.set_result(process)
        reader = threading.Thread(target=self._read, args=(process,), name="console")
        reader.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        self._kill(process)  # what it left behind
        reader.join()
        keeper.kill()
        with keeper, self._unreaped, process:
            pass  # waits for both, and closes their pipes
        status = 0 if self._halted else process.returncode
        self._post(Ended(time.monotonic(), status))

    def _start_both(self) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
        process = _start(self._command, self._folder)
        try:
            group, folder = str(process.pid), str(self._folder)
            return process, _start(("sh", "-c", _KEEPER, group, folder), self._folder)
        except HostError:
            with process:
                self._kill(process)
            raise

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the whole group; its number is no one else's until it is reaped."""
        with self._unreaped:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        with io.BufferedReader(_raw(process.stdout)) as console:
            while line := console.readline(MAX_LINE):
                text = line.decode(errors="replace").strip()
                self._halted |= text == _HALTED
                self._post(Heard(time.monotonic(), text))


def _nameless_files(pid: int) -> Iterator[os.stat_result]:
    """Yield the regular files that a process holds open and that have no name.

    Shared memory of any sort looks like that: memfd, or a file removed at once.
    """
    for link in Path(f"/proc/{pid}/fd").iterdir():
        about = link.stat()
        if stat.S_ISREG(about.st_mode) and about.st_nlink == 0:
            yield about


def _start(command: tuple[str, ...], folder: Path) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - what is started is for the caller to say
            command,
            bufsize=0,
            cwd=folder,
            # An empty environment, or the guest's files went wherever TMPDIR says.
            env={"PATH": os.defpath, "HOME": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise HostError(f"{command[0]} cannot be started: {error.strerror}") from error


def _raw(pipe: IO[bytes] | None) -> io.RawIOBase:
    """Return a pipe as what it is: Popen was asked for it, and for no buffer."""
    return cast("io.RawIOBase", pipe)
