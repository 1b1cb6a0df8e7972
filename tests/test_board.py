"""A table that is drawn again and again."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout

import pytest

from balloon_plugin import board
from balloon_plugin.board import Board

HEADS = ("guest", "target", "verdict")
FIRST = [(("vm1", "128M", "good (GOOD)"), "green"), (("vm2", "0", "no driver"), "")]
SECOND = [(("vm1", "256M", "good (GOOD)"), "green"), FIRST[1]]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def drawn(monkeypatch):
    """Draw tables on a terminal; return what of it is seen at the end."""
    monkeypatch.setenv("TERM", "xterm")

    def drawn(*tables, columns=80, lines=24):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", str(lines))
        terminal = Terminal()
        with redirect_stdout(terminal), Board(HEADS) as drawing:
            for table in tables:
                drawing.draw(table)
        shown = terminal.getvalue()
        plain = re.sub(r"\033\[[\d;?]*[a-zA-Z]|\r", "", shown)
        last = plain[max(0, plain.rfind(HEADS[0])) :]
        return [line.rstrip() for line in last.splitlines()], shown

    return drawn


def test_a_table_is_drawn_over_the_one_before(drawn):
    lines, shown = drawn(FIRST, SECOND)

    assert lines == [
        "guest  target  verdict",
        "vm1    256M    good (GOOD)",
        "vm2    0       no driver",
    ]
    assert "\033[32mvm1" in shown
    assert "\033[1A" in shown


def test_on_a_narrow_terminal_a_guest_has_two_lines(drawn):
    lines, _ = drawn(FIRST, columns=20)

    assert lines == [
        "guest  verdict",
        "  target",
        "vm1  good (GOOD)",
        "  128M",
        "vm2  no driver",
        "  0",
    ]


def test_what_does_not_fit_is_counted(drawn):
    lines, _ = drawn([((f"vm{i}", "0", "good"), "") for i in range(300)], lines=10)

    assert lines == [
        "guest  target  verdict",
        *(f"vm{i}    0       good" for i in range(7)),
        "... and 293 lines more",
    ]


def test_where_nothing_can_be_drawn_over_only_changes_are_told(capsys):
    with Board(HEADS) as drawing:
        drawing.draw(FIRST)
        drawing.draw(SECOND)
        drawing.draw(SECOND)

    told = [re.sub(r"^\d\d:\d\d:\d\d", "TIME", line) for line in
            capsys.readouterr().out.splitlines()]  # fmt: skip
    assert told == [
        "TIME  vm1  target 128M  verdict good (GOOD)",
        "TIME  vm2  target 0  verdict no driver",
        "TIME  vm1  target 256M  verdict good (GOOD)",
    ]


def test_without_rich_a_terminal_gets_lines(drawn, monkeypatch):
    monkeypatch.setattr(board, "HAVE_RICH", False)

    _, shown = drawn(FIRST, SECOND)

    assert len(shown.splitlines()) == 3
    assert "\033" not in shown
