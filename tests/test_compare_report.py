"""Rows and tallies as text: tables, legends, and the blocks of the documentation."""

from __future__ import annotations

import pytest
from test_compare_tally import row

from balloon_plugin.compare import report
from balloon_plugin.compare.limits import LIMITS
from balloon_plugin.compare.report import cells, in_markdown, replaced, style
from balloon_plugin.compare.tally import HEADS, command, tally


def by_head(each):
    return dict(zip(report.ROW_HEADS, cells(each), strict=True))


def test_a_usual_row_names_its_guest():
    assert by_head(row(evidence=("first", "last"))) == {
        "guest": "linux-3.4-be-64k",
        "policy": "probe",
        "verdict": "good",
        "state": "GOOD",
        "": "right",
        "harm": "-",
        "taken": "16",
        "parked": "-",
        "steps": "20",
        "usable": "yes",
        "because": "last",
    }


def test_a_special_one_says_what_was_special():
    found = by_head(
        row(
            circumstance="host-64k",
            verdict="undecided",
            harm_pages=3,
            taken_pages=0,
            parked_pages=5,
            steps=None,
            usable=False,
        )
    )

    assert found["guest"] == "linux-3.4-be-64k, host-64k"
    assert (found[""], found["harm"], found["taken"]) == ("WRONG", "3", "-")
    assert (found["parked"], found["steps"], found["usable"]) == ("5", "-", "no")
    assert found["because"] == "-"


@pytest.mark.parametrize(
    ("changes", "colour"),
    [
        ({}, ""),
        ({"truth": "buggy"}, "yellow"),
        ({"harm_pages": 1}, "red"),
        ({"harm_pages": 1, "truth": "buggy"}, "red"),
    ],
)
def test_what_is_wrong_stands_out(changes, colour):
    assert style(row(**changes)) == colour


def test_every_column_of_figures_is_explained():
    explained = {line.partition(":")[0] for line in report.LEGEND.splitlines()}
    matrix = {line.partition(":")[0] for line in report.MATRIX_LEGEND.splitlines()}

    assert explained <= set(report.ROW_HEADS)
    assert matrix <= set(HEADS)


def test_the_worst_cases_come_with_their_commands():
    lines = list(
        report.worst_cases(tally([row(harm_pages=3), row(truth="buggy"), row()]))
    )

    again = f"    {command(row())}"
    assert lines == [
        "probe, harmed (3 pages): linux-3.4-be-64k, usual",
        again,
        "probe, false GOOD: linux-3.4-be-64k, usual",
        again,
    ]


def test_a_matrix_is_a_table_in_markdown():
    lines = in_markdown(tally([row(), row(policy="none", harm_pages=2)])).splitlines()

    heads, rule, probe, none = lines
    assert heads == f"| {' | '.join(HEADS)} |"
    assert rule == f"| --- | {' | '.join(['---:'] * (len(HEADS) - 1))} |"
    assert probe.startswith("| `probe` | 1 | 1 | - |")
    assert none.startswith("| `none` | 1 | 1 | 1 (2 pages) |")


def test_every_limit_is_told_with_what_it_concerns_and_its_proof():
    text = report.limits_in_markdown()

    for each in LIMITS:
        assert (
            f"{each.name} ({', '.join(sorted(each.heads))})\n: {each.proof}\n" in text
        )
    assert "perfect liar (false GOOD, harmed)\n: It does all" in text


PAGE = """\
before
<!-- matrix -->
old
<!-- end of matrix -->
after
"""


def test_a_block_of_a_document_is_replaced_and_nothing_else():
    once = replaced(PAGE, "matrix", "new\n")

    assert once == ("before\n<!-- matrix -->\n\nnew\n\n<!-- end of matrix -->\nafter\n")
    assert replaced(once, "matrix", "new\n") == once


@pytest.mark.parametrize(
    "text",
    ["nothing", PAGE.replace("<!-- matrix -->\n", ""), PAGE.replace("end of ", "")],
)
def test_a_document_without_its_markers_is_refused(text):
    with pytest.raises(ValueError, match="there is no <!-- matrix --> with its end"):
        replaced(text, "matrix", "new\n")
