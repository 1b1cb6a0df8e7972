"""A terminal as pages to be turned: keys in, lines out.

Knows nothing of what is shown, and nothing but the escape sequences that every terminal
understands, so that it works over ssh and without rich.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from balloon_plugin.errors import HostError

__all__ = ["turn_pages"]

_KEYS: Final = {
    b"\x1b[A": "p",
    b"\x1b[B": "n",
    b"\x1b[5~": "b",
    b"\x1b[6~": "f",
    b"\x1b[H": "g",
    b"\x1b[F": "G",
    b" ": "n",
    b"\r": "n",
    b"\n": "n",
    b"\x1b": "q",
    b"\x04": "q",
    b"": "q",
}
"""Arrows, page up and down, Home and End; space and Enter; what means the end."""

_LONGEST: Final = 16
"""Bytes of a key; what comes at once is one."""

_LOOK: Final = 0.25
"""Seconds after which the size of the terminal is looked at again."""


def turn_pages(
    page: Callable[[int, int], Sequence[str]], press: Callable[[str], bool]
) -> None:
    """Show pages, and take keys, until ``press`` returns ``False``.

    A page is made anew after each key, and when the terminal has got another size.

    :param page: makes a page for a width and a height in characters.
    :param press: takes a key by the letter that means the same.
    :raises HostError: if there is no terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise HostError(
            "there is no terminal to show pages on: leave --interactive away, or give "
            "--json"
        )
    with _raw():
        going = True
        while going:
            size = shutil.get_terminal_size()
            _draw(page(size.columns, size.lines))
            if _key_comes(size):
                key = os.read(sys.stdin.fileno(), _LONGEST)
                going = press(_KEYS.get(key, key.decode(errors="replace")))


def _key_comes(size: os.terminal_size) -> bool:
    """Wait for a key; return whether there is one, or else another size."""
    while shutil.get_terminal_size() == size:
        ready, _, _ = select.select([sys.stdin], [], [], _LOOK)
        if ready:
            return True
    return False


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Have keys one by one and a screen of our own; leave the old one as it was."""
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    try:
        tty.setcbreak(stdin)
        sys.stdout.write("\x1b[?1049h\x1b[?25l")
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _draw(lines: Sequence[str]) -> None:
    sys.stdout.write("\x1b[H\x1b[2J" + "\n".join(lines))
    sys.stdout.flush()
