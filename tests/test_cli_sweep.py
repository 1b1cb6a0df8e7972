"""``balloon-plugin sweep``: what it prints and refuses."""

from __future__ import annotations

import csv
import io
import json
import sys

import pytest
from fleets import SMALL

from balloon_plugin import show
from balloon_plugin.cli import sweep


@pytest.fixture
def fleet(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def swept(run, fleet):
    """Run a small sweep; return what it printed."""

    def swept(*words):
        policies = ("--policy", "none", "--policy", "evidence")
        code, out, err = run("sweep", fleet, "--runs", 30, *policies, *words)
        assert (code, err) == (0, "")
        return out

    return swept


def test_a_sweep_is_a_table_and_the_advice(swept):
    title, empty, heads, *lines = swept("--workers", "1").splitlines()

    assert (title, empty) == ("30 guests of small: two kinds", "")
    assert heads.split() == ["none", "evidence"]
    right = next(line for line in lines if line.startswith("right"))
    assert right.split() == ["right", "83.3", "100.0"]
    assert any(line.startswith("harmed: the guest lost pages") for line in lines)
    assert "Choose `evidence`: no other policy harms fewer guests" in "\n".join(lines)


def test_a_sweep_is_json_if_asked_for(swept):
    document = json.loads(swept("--json"))

    assert (document["population"]["name"], document["runs"]) == ("small", 30)
    assert document["decision"]["choices"] == ["evidence"]
    assert sum(row["draws"] for row in document["rows"]) == 2 * 30


def test_a_sweep_is_csv_if_asked_for(swept):
    lines = list(csv.DictReader(io.StringIO(swept("--csv"))))

    assert sum(int(line["draws"]) for line in lines) == 2 * 30


def test_the_seed_counts_and_the_workers_do_not(swept):
    first = swept("--workers", "1", "--json")

    assert swept("--workers", "2", "--json") == first
    assert swept("--workers", "2", "--json", "--seed", "2") != first


def test_the_populations_that_have_a_name_are_listed(run):
    code, out, err = run("sweep", "--populations")

    assert (code, err) == (0, "")
    assert out.splitlines()[1].startswith("ppc64-2012  guests of a ppc64 host")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("nobody",), "there is no population 'nobody'; there is ppc64-2012"),
        (("--workers", "0"), "argument --workers: '0' is no number of processes"),
        (("no.toml",), "the population no.toml cannot be read: No such file or dir"),
        (
            ("--html", "no/x.html"),
            "argument --html: no/x.html cannot be written: No such file or directory",
        ),
        (("--runs", "1"), "a sweep of 1 guests tells nothing: draw 2 or more"),
        (("--workers", "1", "--cluster", "x"), "argument --cluster: not allowed with"),
    ],
)
def test_what_cannot_be_done_is_refused(refused, words, why):
    assert refused("sweep", *words).startswith(why)


def test_without_scipy_it_is_said_what_to_install(refused, fleet, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    words = ("--policy", "none", "--runs", "2", "--workers", "1")

    said = refused("sweep", fleet, *words)

    assert said == "a sweep needs SciPy: pip install 'balloon-plugin[sweep]'"


def test_an_interrupted_sweep_says_what_would_have_kept_it(run, fleet, monkeypatch):
    def interrupted(*_, progress, **__):
        progress(3, 10)
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "sweep", interrupted)

    code, out, err = run("sweep", fleet)

    assert (code, out) == (130, "")
    assert err == (
        "balloon-plugin: interrupted after 3 of 10 runs; with --resume FILE they would "
        "have been kept\n"
    )


def test_an_interruption_while_guests_are_drawn_has_lost_nothing(
    run, fleet, monkeypatch
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "sweep", interrupted)

    _, _, err = run("sweep", fleet)

    assert err == "balloon-plugin: interrupted before the first run\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_shows_how_far_it_is_and_leaves_nothing(monkeypatch):
    times = iter([0.0, 1.0, 2.0, 100.0])
    monkeypatch.setattr(show.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(sys, "stderr", Terminal())

    with show.Bar() as bar:
        bar.note("drawing guests")
        bar(10, 100)
        bar(20, 100)
        bar(21, 1000)

    note, first, second, third, end = sys.stderr.getvalue().split("\r\033[K")[1:]
    assert note == "drawing guests"
    assert first == "[###...........................] 10 of 100"
    assert second == "[######........................] 20 of 100, 8 s left"
    assert third.endswith("] 21 of 1000, 2 min 58 s left")
    assert end == ""


def test_a_bar_shows_nothing_where_nobody_looks(capsys):
    with show.Bar() as bar:
        bar.note("drawing guests")
        bar(1, 2)

    assert capsys.readouterr() == ("", "")
    assert (bar.done, bar.total) == (1, 2)


def test_a_report_is_written_if_asked_for(swept, tmp_path):
    path = tmp_path / "report.html"

    swept("--workers", "1", "--html", path)

    page = path.read_text()
    assert "Which policy for two kinds?" in page
    assert f"--workers 1 --html {path}" in page
