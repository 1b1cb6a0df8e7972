"""``balloon-plugin compare``: what it prints and refuses."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from balloon_plugin.cli import compare
from balloon_plugin.compare import matrix
from balloon_plugin.compare import run as run_one
from balloon_plugin.guests.profiles import GUESTS, find

GUEST = "linux-3.4-be-64k"
A_ROW = run_one(find(GUEST), "none")


def test_a_comparison_is_a_table_with_its_legend(run):
    code, out, err = run("compare", "--guest", GUEST, "--policy", "feature-bit")

    assert (code, err) == (0, "")
    heads, row, empty, *legend = out.splitlines()
    names = "guest policy verdict state harm taken parked steps usable because"
    assert heads.split() == names.split()
    assert row.split()[:10] == (
        f"{GUEST} feature-bit buggy NOT_ACKED WRONG - - - 1 no".split()
    )
    assert empty == ""
    assert {line.partition(":")[0] for line in legend} <= {*heads.split()}


def test_a_comparison_is_json_if_asked_for(run):
    words = ("--guest", GUEST, "--policy", "probe", "--policy", "none", "--json")
    code, out, err = run("compare", *words)

    assert (code, err) == (0, "")
    (document,) = json.loads(out).items()
    assert document[0] == "rows"
    assert [row["policy"] for row in document[1]] == ["probe", "none"]
    names = (
        "guest policy verdict state right harm_pages taken_pages parked_pages steps "
        "usable defects evidence"
    )
    assert document[1][0].keys() >= {*names.split()}


def guests_of(out):
    return list(dict.fromkeys(line["guest"] for line in json.loads(out)["rows"]))


def test_without_a_name_it_is_the_guests_of_the_argument(run):
    _, out, _ = run("compare", "--policy", "none", "--json")

    assert guests_of(out) == [
        "linux-3.3-be-64k",
        "linux-3.3-be-4k",
        "linux-3.3-le-64k",
        "linux-3.4-be-64k",
    ]


@pytest.mark.parametrize("words", [("--guest", "all"), ("--matrix",)])
def test_all_guests_can_be_had(run, monkeypatch, words):
    """Each in one circumstance, and that a short one."""
    monkeypatch.setattr(compare, "compare", lambda guests, *_: map(row_of, guests))
    monkeypatch.setattr(matrix, "rows", lambda tasks, _: map(row_of_task, tasks))
    words = (*words, "--circumstance", "usual", "--policy", "none", "--json")

    _, out, _ = run("compare", *words)

    assert guests_of(out) == list(GUESTS)


def row_of(guest):
    return replace(A_ROW, guest=guest.name)


def row_of_task(task):
    case, _ = task
    return replace(A_ROW, guest=case.guest)


def test_the_guests_are_listed_with_their_truth(run):
    code, out, err = run("compare", "--guests")

    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert list(rows) == ["guest", *GUESTS]
    assert rows["linux-3.3-be-64k"] == ["buggy", "ENDIAN_TARGET,", "PAGE_SHIFT"]
    assert rows[GUEST] == ["good", "-"]


@pytest.mark.parametrize("guests", [[], [GUEST, "linux-3.4-be-4k"], ["all"]])
def test_a_trace_is_of_one_run(refused, guests):
    words = [word for guest in guests for word in ("--guest", guest)]

    assert refused("compare", "--trace", *words) == (
        "--trace shows one run: give --guest once"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--markdown", "x.md"], "--markdown is for the table of --matrix: give both"),
        (["--trace", "--json"], "--trace prints the events of one run, and makes "),
        (["--trace", "--matrix"], "--trace prints the events of one run, and makes "),
    ],
)
def test_nothing_is_left_undone_without_a_word(refused, words, sentence):
    assert refused("compare", "--guest", GUEST, *words).startswith(sentence)


def test_a_guest_that_does_not_exist_is_refused(refused):
    assert refused("compare", "--guest", "linux-3.4-be-65k") == (
        "there is no guest 'linux-3.4-be-65k'; did you mean linux-3.4-be-64k? "
        "'balloon-plugin compare --guests' lists all"
    )


def test_a_comparison_is_csv_if_asked_for(run):
    code, out, err = run("compare", "--guest", GUEST, "--policy", "probe", "--csv")

    assert (code, err) == (0, "")
    heads, line = out.splitlines()
    assert heads.startswith("guest,circumstance,policy,")
    assert line.startswith(f"{GUEST},usual,probe,")


def test_a_report_is_written_if_asked_for(run, tmp_path):
    path = tmp_path / "report.html"

    run("compare", "--guest", GUEST, "--policy", "probe", "--html", path)

    page = path.read_text()
    assert f"{GUEST} under probe" in page
    assert f"balloon-plugin compare --guest {GUEST}" in page


@pytest.mark.parametrize("number", ["0", "-1", "x", "1025"])
def test_workers_are_one_or_more_and_no_flood(refused, number):
    assert refused("compare", "--matrix", "--workers", number).startswith(
        f"argument --workers: '{number}' is no number of processes: write 1 to "
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [(None, r"\[Errno 2\] No such file"), ("", "there is no <!-- matrix --> with")],
)
def test_a_file_without_markers_for_the_matrix_is_refused(refused, tmp_path, text, why):
    path = tmp_path / "page.md"
    if text is not None:
        path.write_text(text)
    words = ("--guest", "no-driver", "--circumstance", "usual", "--policy", "none")

    said = refused("compare", "--matrix", *words, "--markdown", path)

    assert re.match(rf"the table cannot be put into {path}: {why}", said)
