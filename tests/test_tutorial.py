"""The tutorial tells the truth: all that it tells a reader to type is typed here."""

from __future__ import annotations

import contextlib
import io

import pytest
from walkthrough import INSTALLED, Block, blocks, matches, play, run

from balloon_plugin.boot.uml import find_uml

PAGE = blocks("docs/tutorial.md")
CONSOLE = [block for block in PAGE if block.language == "console"]
CODE = [block for block in PAGE if block.language in ("{testcode}", "{testoutput}")]

PLAIN = [block for block in CONSOLE if block.hint in ("", "keys")]
REAL = [block for block in CONSOLE if block.hint in ("real", "terminal")]
INSTALL = [block for block in CONSOLE if block.hint == "install"]


def test_every_block_is_of_a_kind_that_is_run():
    assert len(PLAIN) + len(REAL) + len(INSTALL) == len(CONSOLE)
    assert len(CONSOLE) + len(CODE) == len(PAGE)
    assert min(map(len, (PLAIN, REAL, INSTALL, CODE))) > 0


# --- what is shown and what is printed ----------------------------------------------


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (["a", "b"], ["a", "b"], True),
        (["a"], ["a", "b"], False),
        (["a", "b"], ["b", "a"], False),
        (["a ..."], ["a b c"], True),
        (["a ..."], ["b c"], False),
        (["..."], [], True),
        (["a", "...", "d"], ["a", "b", "c", "d"], True),
        (["a", "...", "d"], ["a", "b", "c"], False),
        (["a.c"], ["abc"], False),
    ],
)
def test_lines_are_compared_as_people_would(shown, printed, same):
    assert matches(shown, printed) == same


def test_what_is_typed_is_told_from_what_is_shown():
    block = Block("console", "first\n$ one \\\n    two\n...\n/ # three\nx\n^C\n")

    assert block.turns == [
        ("", ["first"]),
        ("one \\\n    two", ["..."]),
        ("/ # three", ["x"]),
        ("^C", []),
    ]


# --- commands -----------------------------------------------------------------------


@pytest.mark.slow
def test_the_commands_print_what_is_shown(here, terminal):
    for block in PLAIN:
        for typed, shown in block.turns:
            if block.hint == "keys":
                printed = page_after(terminal(), typed, block.name)
            else:
                printed = run(typed, here)
            assert matches(shown, printed), (typed, "\n".join(printed))


def page_after(screen, typed, keys):
    """Return the page that is seen after a command and some keys."""
    screen.type(typed)
    page = screen.page(1, "n next")
    for number, key in enumerate(keys, 2):
        screen.press(key)
        page = screen.page(number, "n next")
    screen.press("q")
    return page


@pytest.mark.slow
@pytest.mark.parametrize("block", INSTALL)
def test_it_is_installed_as_is_shown(block, here):
    for typed, shown in block.turns:
        assert run(typed, here, **INSTALLED) == shown


# --- real guests --------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.slow
def test_real_guests_do_what_is_shown(here, terminal, require_real):
    require_real(find_uml)
    play(REAL, here, terminal)


# --- code ---------------------------------------------------------------------------


def test_the_code_prints_what_is_shown():
    names = {"__name__": "tutorial"}
    printed = ""
    for block in CODE:
        if block.language == "{testoutput}":
            assert printed == block.text
        else:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block.text, "tutorial.md", "exec"), names)  # noqa: S102
            printed = out.getvalue()
