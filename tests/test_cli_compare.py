"""``balloon-plugin compare``: what it prints and refuses."""

from __future__ import annotations

import json

GUEST = "linux-3.4-be-64k"


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


def test_a_guest_that_does_not_exist_is_refused(refused):
    assert refused("compare", "--guest", "linux-3.4-be-65k").startswith(
        "there is no guest 'linux-3.4-be-65k'; did you mean linux-3.4-be-64k? "
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
