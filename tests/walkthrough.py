"""Pages that a reader types after: their blocks, and terminals to type them into.

What is shown has to be what is printed. A line that ends in ``...`` goes on, and one
that is nothing else stands for any lines. A comment before a block, which no reader
sees, says how it is taken:

``<!-- install -->``
    first of all, in a checkout
``<!-- real -->``
    with a real guest, whose numbers are never the same: each stands for any number
``<!-- terminal: NAME -->``
    in that terminal, one of several that are open at once, with a real guest; there
    may be more between the lines that are shown, and numbers are any numbers
``<!-- keys: KEYS -->``
    in a terminal, with these keys pressed after the command
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

COLUMNS, LINES = 100, 32
"""Of a terminal."""

PATIENCE = 60
"""Seconds that something may take which takes a few."""

_BLOCK = re.compile(
    r"(?:^<!-- (\w+)(?:: (\w+))? -->\n\n?)?^```(\{?\w+\}?)\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_GUEST = "/ # "
"""The prompt of a shell in a guest; what is typed too early is lost there."""

_PROMPTS = ("$ ", _GUEST, "^C")
_CLEAR = "\x1b[2J"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Block:
    """A fenced block: what it is written in, its text, and the comment before it."""

    language: str
    text: str
    hint: str = ""
    name: str = ""

    @property
    def turns(self):
        """What is typed, to a guest with its prompt, and the lines shown after it."""
        turns = [("", [])]
        for line in self.text.replace("\\\n", "\\\n\0").splitlines():
            if line.startswith("\0"):
                typed, shown = turns.pop()
                turns.append((f"{typed}\n{line[1:]}", shown))
            elif line.startswith(_PROMPTS):
                turns.append((line.removeprefix("$ "), []))
            else:
                turns[-1][1].append(line)
        return turns if turns[0][1] else turns[1:]


def blocks(path):
    """Return the blocks of a page, in order."""
    text = (ROOT / path).read_text()
    found = [
        Block(language, text, hint, name)
        for hint, name, language, text in _BLOCK.findall(text)
    ]
    assert text.count("\n```") == 2 * len(found)
    return found


# --- what is shown and what is printed ----------------------------------------------


def matches(shown, printed):
    """Return whether lines are what is shown."""
    parts = ["..." if line == "..." else _pattern(line) for line in shown]
    lines = "".join(r"(?:.*\n)*?" if part == "..." else f"{part}\n" for part in parts)
    return re.fullmatch(lines, "".join(f"{line}\n" for line in printed)) is not None


def _pattern(line):
    return re.escape(line.removesuffix("...")) + ".*" * line.endswith("...")


def rough(lines):
    """Return lines without what differs from one time to the next."""
    return [" ".join(re.sub(r"\d+(\.\d+)*", "#", line).split()) for line in lines]


# --- running ------------------------------------------------------------------------


def checkout(folder):
    """Make a folder look like a checkout, one that may be written to."""
    for path in ROOT.iterdir():
        if path.name not in {".venv", ".git", ".tox"}:
            (folder / path.name).symlink_to(path)


def environment(**more):
    """Return an environment in which our command is found, and output is plain."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ours = {"PATH": path, "TERM": "xterm", "NO_COLOR": "1", **more}
    # Whoever runs the tests may have a terminal of another size.
    size = {"COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    return os.environ | size | ours


INSTALLED = {
    "PIP_NO_DEPS": "1",
    "PYTHONPATH": os.pathsep.join(path for path in sys.path if "site-packages" in path),
}
"""For an environment: what a package depends on is here, and need not come again."""


def run(command, folder, **more):
    """Run a line of a page; return the lines that are printed."""
    done = subprocess.run(  # noqa: S602 - our own page
        command,
        shell=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=environment(**more),
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout)
    return done.stdout.splitlines()


def play(page, folder, terminal):
    """Do all that a page does with real guests; return its terminals by name.

    :param terminal: opens one.
    """
    terminals = {}
    for block in page:
        for typed, shown in block.turns:
            if block.hint == "real":
                printed = run(typed, folder)
                assert matches(*map(_sure, (shown, printed))), (typed, printed)
            elif block.hint == "terminal":
                if block.name not in terminals:
                    terminals[block.name] = terminal()
                if typed:
                    terminals[block.name].type(typed)
                terminals[block.name].see(shown)
    return terminals


_EITHER = re.compile("balloon target of .* MiB (accepted|deferred)")
"""Whether a target has to wait depends on who is faster, the user or the driver."""


def _sure(lines):
    return rough(line for line in lines if not _EITHER.search(line))


class Terminal:
    """A terminal with a shell in it."""

    def __init__(self, folder):
        self._end, inside = os.openpty()
        size = struct.pack("HHHH", LINES, COLUMNS, 0, 0)
        fcntl.ioctl(inside, termios.TIOCSWINSZ, size)
        self._shell = subprocess.Popen(
            ["setsid", "--ctty", "sh"],  # noqa: S607 - whichever there is
            cwd=folder,
            env=environment(PS1="", PS2=""),
            stdin=inside,
            stdout=inside,
            stderr=inside,
        )
        os.close(inside)
        self._written = ""
        self._seen = 0  # lines

    def type(self, text):
        """Type a line, when a guest is ready for it, or Ctrl-C."""
        if text.startswith(_GUEST):
            self._wait(lambda: self._lines()[-1].startswith(_GUEST), _GUEST)
        self.press("\x03" if text == "^C" else f"{text.removeprefix(_GUEST)}\n")

    def press(self, keys):
        os.write(self._end, keys.encode())

    def see(self, shown):
        """Wait for lines like these, one after the other, maybe with others between."""
        for line in rough(line for line in shown if line != "..."):
            self._wait(lambda line=line: self._has(line), line)

    def page(self, number, last):
        """Wait for a page by its number; it ends in a line that begins like this."""

        def lines():
            _, *pages = self._written.split(_CLEAR)
            page = pages[number - 1] if len(pages) >= number else ""
            return [line.rstrip() for line in self._plain(page).split("\n")]

        self._wait(lambda: lines()[-1].startswith(last), f"page {number}")
        return lines()

    def _has(self, part):
        """Return whether a line like this was printed, and go on behind it."""
        begin = part.removesuffix("...")
        lines = rough(self._lines()[:-1])
        for at, line in enumerate(lines[self._seen :], self._seen + 1):
            if line == part or (begin != part and line.startswith(begin)):
                self._seen = at
                return True
        return False

    def _lines(self):
        return self._plain(self._written).split("\n")

    @staticmethod
    def _plain(text):
        return _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")

    def _wait(self, what, name):
        """Read on until something is so."""
        end = time.monotonic() + PATIENCE
        while not what():
            patience = max(end - time.monotonic(), 0)
            ready, _, _ = select.select([self._end], [], [], patience)
            assert ready, f"there is no {name!r} in {self._written}"
            self._written += os.read(self._end, 65536).decode(errors="replace")

    def close(self):
        """End whatever runs in it: User-Mode Linux would outlive its terminal."""
        for pid in _of_session(self._shell.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._shell.wait(20)
        os.close(self._end)


def _of_session(leader):
    """Yield the processes of a session."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, _, after = path.read_text().rpartition(")")
            if int(after.split()[3]) == leader:
                yield int(path.parent.name)
