"""What is drawn: on a terminal with rich and without, and into a pipe."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from balloon_plugin import show

HEADS = ("guest", "verdict", "because")
ROWS = [
    (
        "linux-3.3-be-4k",
        "buggy",
        "It took more than the 16 pages that it was asked for.",
    ),
    ("no-driver", "undecided", "-"),
]
STYLES = ("red", "")
WIPE = "\r\033[K"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def on_terminal(monkeypatch):
    """Draw on a terminal that knows colours; return what it gets."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def draw(function, columns=70):
        monkeypatch.setenv("COLUMNS", str(columns))
        terminal = Terminal()
        with redirect_stdout(terminal), redirect_stderr(terminal):
            function()
        return terminal.getvalue()

    return draw


@pytest.fixture
def without_rich(monkeypatch):
    monkeypatch.setattr(show, "HAVE_RICH", False)


# --- into a pipe --------------------------------------------------------------------


def test_a_table_in_a_pipe_is_aligned_and_whole(capsys):
    show.table(HEADS, ROWS, STYLES)

    assert capsys.readouterr().out.splitlines() == [
        "guest            verdict    because",
        ("linux-3.3-be-4k  buggy      " + ROWS[0][2]),
        "no-driver        undecided  -",
    ]


def test_a_table_without_rows_has_its_heads(capsys):
    show.table(HEADS, [])

    assert capsys.readouterr().out == "guest  verdict  because\n"


def test_nothing_that_passes_gets_into_a_pipe(capsys):
    with show.Ticker() as ticker:
        ticker.wait("3 of 8")
        ticker.line("done", "green")
        ticker.wait("4 of 8")
    items = list(show.progress("ab", 2))

    assert items == ["a", "b"]
    assert capsys.readouterr() == ("done\n", "")


def test_an_error_is_one_line_beside_the_output(capsys):
    show.error("there is no such thing")

    assert capsys.readouterr() == ("", "balloon-plugin: there is no such thing\n")


def test_a_line_is_out_at_once():
    class Pipe(io.StringIO):
        flushed = 0

        def flush(self):
            self.flushed = len(self.getvalue())

    pipe = Pipe()
    with redirect_stdout(pipe):
        show.line("first")

    assert pipe.flushed == len("first\n")


# --- on a terminal ------------------------------------------------------------------


def test_a_table_has_colours_and_folds_its_last_column(on_terminal):
    drawn = on_terminal(lambda: show.table(HEADS, ROWS, STYLES))

    assert "\033[31mlinux-3.3-be-4k" in drawn
    assert "for." in drawn
    assert len(drawn.splitlines()) > 1 + len(ROWS)


def test_brackets_are_no_markup(on_terminal):
    line = on_terminal(lambda: show.line("[red]alert[/red]", "bold"))
    table = on_terminal(lambda: show.table(HEADS, [("[b]", "[/b]", "[link=x]y")]))

    assert "[red]alert[/red]" in line
    assert "[link=x]y" in table


def test_a_long_line_is_not_folded(on_terminal):
    drawn = on_terminal(lambda: show.line("x" * 100, "cyan"))

    assert "x" * 100 in drawn


SENTENCES = "  1.0 s  policy  It took well-nigh all the pages. That was too much."


@pytest.mark.parametrize(
    "drawing", [show.prose, lambda *how: show.Ticker().line(*how)], ids=["", "ticker"]
)
def test_sentences_are_folded_between_words(on_terminal, drawing):
    drawn = on_terminal(lambda: drawing(SENTENCES, "", 9), columns=31)

    assert drawn.replace(WIPE, "").splitlines() == [
        "  1.0 s  policy  It took",
        "         well-nigh all the",
        "         pages. That was too",
        "         much.",
    ]


def test_sentences_in_a_pipe_are_one_line(capsys):
    show.prose(SENTENCES, hang=9)

    assert capsys.readouterr().out == f"{SENTENCES}\n"


@pytest.mark.usefixtures("without_rich")
def test_without_rich_the_last_column_is_cut_at_the_edge(on_terminal):
    drawn = on_terminal(lambda: show.table(HEADS, ROWS, STYLES))

    assert drawn.splitlines() == [
        "guest            verdict    because",
        "linux-3.3-be-4k  buggy      It took more than the 16 pages that it was",
        "no-driver        undecided  -",
    ]


@pytest.mark.parametrize("have_rich", [True, False])
def test_a_narrow_terminal_gets_all_of_it_in_several_lines(
    on_terminal, monkeypatch, have_rich
):
    monkeypatch.setattr(show, "HAVE_RICH", have_rich)
    rows = [ROWS[0], (ROWS[0][0], "good", "-"), ROWS[1]]

    drawn = on_terminal(lambda: show.table(HEADS, rows), columns=30)

    assert re.sub(r"\033\[\d*m", "", drawn).splitlines() == [
        "guest",
        "  verdict",
        "    because",
        "linux-3.3-be-4k",
        "  buggy",
        "    It took more than the 16",
        "    pages that it was asked",
        "    for.",
        "  good",
        "    -",
        "no-driver",
        "  undecided",
        "    -",
    ]


@pytest.mark.usefixtures("without_rich")
def test_cells_that_are_wider_than_the_terminal_are_folded(on_terminal):
    rows = [("probe", "pages=16 seconds=5 align=True", "here", "It asks.")]

    drawn = on_terminal(lambda: show.table(("policy", *"abc"), rows), columns=30)

    assert drawn.splitlines() == [
        *("policy", "  a", "  b", "    c"),
        *("probe", "  pages=16 seconds=5", "  align=True here", "    It asks."),
    ]


@pytest.mark.usefixtures("without_rich")
@pytest.mark.parametrize("columns", [11, 10])
def test_a_table_of_short_cells_is_one_as_long_as_it_fits(on_terminal, columns):
    drawn = on_terminal(lambda: show.table(("a", "b"), [("long", "short")]), columns)

    fits = columns >= len("long  short")
    assert (len(drawn.splitlines()) == len(["a  b", "long  short"])) == fits


def test_what_is_waited_for_is_wiped_away(on_terminal):
    def wait():
        with show.Ticker() as ticker:
            ticker.wait("3 of 8")
            ticker.line("done")
            ticker.wait("never finished")

    assert on_terminal(wait) == f"{WIPE}3 of 8{WIPE}done\n{WIPE}never finished{WIPE}"


def test_what_is_waited_for_has_one_line(on_terminal):
    drawn = on_terminal(lambda: show.Ticker().wait("x" * 100), columns=20)

    assert drawn == f"{WIPE}{19 * 'x'}"


def test_progress_is_counted_and_wiped_away(on_terminal):
    drawn = on_terminal(lambda: list(show.progress("ab", 2)))

    assert drawn == f"1 of 2\r2 of 2{WIPE}"


# --- facts --------------------------------------------------------------------------

FACTS = [("memory", "16 MiB"), ("verdict", "It took more than it was asked for.")]


def test_facts_stand_beside_their_titles(capsys):
    show.facts(FACTS)

    assert capsys.readouterr().out.splitlines() == [
        "  memory   16 MiB",
        "  verdict  It took more than it was asked for.",
    ]


@pytest.mark.usefixtures("without_rich")
def test_facts_are_folded_on_a_terminal(on_terminal):
    drawn = on_terminal(lambda: show.facts([("verdict", "a b " * 15)]), columns=55)

    assert drawn.splitlines() == [
        "  verdict  a b a b a b a b a b a b a b a b a b a b a b",
        "           a b a b a b a b",
    ]


@pytest.mark.usefixtures("without_rich")
def test_facts_stand_below_their_titles_on_a_narrow_terminal(on_terminal):
    drawn = on_terminal(lambda: show.facts(FACTS), columns=30)

    assert drawn.splitlines() == [
        "  memory",
        "    16 MiB",
        "  verdict",
        "    It took more than it was",
        "    asked for.",
    ]


# --- where rich is not installed ----------------------------------------------------


def test_the_command_line_works_without_rich():
    script = (
        "import sys; sys.modules['rich'] = None\n"
        "from balloon_plugin import cli, show\n"
        "assert not show.HAVE_RICH\n"
        "sys.exit(cli.main(['policies']))"
    )

    done = subprocess.run(  # noqa: S603 - it is our own
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("policy ")
