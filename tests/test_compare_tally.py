"""Rows counted: what is a failure, what it weighs, and how to see the worst again."""

from __future__ import annotations

import dataclasses
import json
import shlex

import pytest

from balloon_plugin import cli
from balloon_plugin.compare import Row
from balloon_plugin.compare.tally import FAILURES, HEADS, Tally, command, tally

RIGHT = Row(
    guest="linux-3.4-be-64k",
    circumstance="usual",
    policy="probe",
    judged="linux-3.4-be-64k",
    truth="good",
    verdict="good",
    state="GOOD",
    harm_pages=0,
    taken_pages=16,
    parked_pages=0,
    steps=20,
    usable=True,
    usable_at_best=True,
)


def row(**changes):
    return dataclasses.replace(RIGHT, **changes)


def failed(each):
    return [failure.head for failure in FAILURES if failure.failed(each)]


@pytest.mark.parametrize(
    ("changes", "heads"),
    [
        ({}, []),
        ({"harm_pages": 1}, ["harmed"]),
        ({"truth": "buggy"}, ["false GOOD"]),
        ({"truth": "undecided"}, ["false GOOD"]),
        ({"verdict": "buggy"}, ["false BUGGY"]),
        ({"verdict": "buggy", "truth": "buggy"}, []),
        ({"verdict": "undecided"}, ["undecided"]),
        ({"verdict": "undecided", "truth": "undecided"}, []),
        ({"usable": False}, ["unusable"]),
        ({"usable": False, "usable_at_best": False}, []),
        ({"parked_pages": 16}, ["parked"]),
        (
            {"harm_pages": 2, "verdict": "buggy", "usable": False, "parked_pages": 1},
            ["harmed", "false BUGGY", "unusable", "parked"],
        ),
    ],
)
def test_what_is_a_failure(changes, heads):
    assert failed(row(**changes)) == heads


def test_policies_are_counted_apart_in_the_order_in_which_they_come():
    found = tally([row(), row(policy="none"), row(), row(policy="none", truth="buggy")])

    assert [(each.policy, each.runs, each.right) for each in found] == [
        ("probe", 2, 2),
        ("none", 2, 1),
    ]


def test_runs_and_pages_are_counted():
    [found] = tally(
        [row(harm_pages=3), row(harm_pages=5), row(), row(verdict="undecided")]
    )

    assert dict(zip(HEADS, found.cells(), strict=True)) == {
        "policy": "probe",
        "runs": "4",
        "right": "3",
        "harmed": "2 (8 pages)",
        "false GOOD": "-",
        "false BUGGY": "-",
        "undecided": "1",
        "unusable": "-",
        "parked": "-",
        "unavoidable": "-",
    }


def test_the_worst_is_that_with_most_pages_and_else_the_first():
    harmed = [row(harm_pages=n, state=f"{n}") for n in (3, 5, 5, 4)]
    unusable = [row(usable=False, state=state) for state in "ab"]
    [found] = tally([*harmed, *unusable])

    assert [(head, each.state) for head, each in found.worst()] == [
        ("harmed", "5"),
        ("unusable", "a"),
    ]
    assert found.counts["harmed"].worst is harmed[1]


def test_parked_pages_are_a_cost_and_no_failure():
    [found] = tally([row(parked_pages=16), row(harm_pages=1), row(usable=False)])

    assert found.failures == 2
    assert found.counts["parked"].pages == 16
    assert "parked" not in dict(found.worst())


def test_what_cannot_be_avoided_is_counted_apart_and_once():
    liar = "perfect-liar-le-4k"
    [found] = tally(
        [
            row(guest=liar, judged=liar, truth="buggy", harm_pages=9),
            # it is no excuse for this
            row(guest=liar, judged=liar, truth="buggy", usable=False),
        ]
    )

    assert (found.unavoidable, found.failures) == (2, 1)
    assert found.counts["unusable"].runs == 1
    assert found.counts["harmed"].runs == 0
    assert found.cells()[-1] == "2"


def test_a_tally_is_a_value_that_json_can_carry():
    [found] = tally([row(harm_pages=3), row()])

    loaded = json.loads(json.dumps(found.as_dict()))

    assert loaded == {
        "policy": "probe",
        "runs": 2,
        "right": 2,
        "unavoidable": 0,
        "failures": {
            failure.head: (
                {"runs": 1, "pages": 3, "worst": command(row(harm_pages=3))}
                if failure.head == "harmed"
                else {"runs": 0, "pages": 0, "worst": None}
            )
            for failure in FAILURES
        },
    }


def test_nothing_counted_is_nothing():
    assert tally([]) == []
    assert Tally("none").worst() == []


def test_a_run_can_be_seen_again_by_its_command(capsys):
    words = shlex.split(command(row(policy="probe:pages=32", circumstance="host-64k")))

    assert words[0] == "balloon-plugin"
    assert cli.main(words[1:]) == 0
    out = capsys.readouterr().out
    assert "driver reads target 32" in out
    assert "linux-3.4-be-64k, host-64k" in out
