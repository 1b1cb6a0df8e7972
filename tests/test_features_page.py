"""The page of features says no more than tests show, and does not hide a gap."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs/features.md").read_text()

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| feature ", "| --- "))
]


def name_of(row):
    return row[0]


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_a_yes_names_a_test_and_a_no_a_reason(row):
    _, *peers, here, shown = row

    assert len(row) == 9
    assert set(peers) <= {"Y", "P", "-"}
    if here.startswith("yes"):
        named = re.fullmatch(r"`([\w/]+\.py)(?:::(\w+))?`", shown)
        assert named, shown
        text = (TESTS / named[1]).read_text()
        assert f"def {named[2]}(" in text if named[2] else "def test_" in text, shown
    else:
        assert re.fullmatch(r"no: .{30,}", here), "a no needs its reason"
        assert not shown


def test_the_page_has_rows():
    assert len(ROWS) > 40
