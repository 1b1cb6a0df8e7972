"""The bar for ``evidence``: over the whole matrix nothing that could be avoided.

A sample always, and with BALLOON_WHOLE_MATRIX=1 all of it under all policies, as the
page of defects shows it.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from balloon_plugin.compare import matrix, report
from balloon_plugin.compare.cases import cases
from balloon_plugin.compare.tally import tally
from balloon_plugin.errors import HostError

POLICIES = ("none", "probe", "feature-bit", "evidence")
CASES = list(cases())
PAGE = Path(__file__).parents[1] / "docs/defects.md"

SAMPLE = 17
"""Every so many cases; no divisor of how many moments there are, or circumstances."""


def test_a_sample_of_the_matrix_meets_the_bar():
    tasks = [(case, "evidence") for case in CASES[::SAMPLE]]

    [found] = tally(matrix.rows(tasks, workers=1))

    assert found.runs > 100
    assert found.failures == 0, found.worst()


def test_rows_are_the_same_in_any_number_of_processes():
    tasks = [(case, "probe") for case in CASES[:: SAMPLE * 10]]

    one, two = (list(matrix.rows(tasks, workers)) for workers in (1, 2))

    assert one == two


def test_who_stops_early_gets_rid_of_what_has_not_begun(monkeypatch):
    class Pool(ProcessPoolExecutor):
        def submit(self, *task):
            futures.append(super().submit(*task))
            return futures[-1]

    monkeypatch.setattr(matrix, "pool", Pool)
    futures = []
    rows = matrix.rows([(case, "none") for case in CASES[:400]], workers=2)

    next(rows)
    rows.close()

    assert all(future.done() for future in futures)
    assert futures[-1].cancelled()


def test_a_worker_that_dies_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setattr(matrix, "run", lambda *_: os._exit(1))

    with pytest.raises(HostError, match="was killed"):
        list(matrix.rows([(case, "none") for case in CASES[:40]], workers=2))


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("BALLOON_WHOLE_MATRIX") != "1",
    reason="BALLOON_WHOLE_MATRIX=1 runs all of it, which takes a minute",
)
def test_the_whole_matrix_is_what_the_documentation_says():
    tasks = [(case, policy) for policy in POLICIES for case in CASES]

    found = tally(matrix.rows(tasks))

    text = PAGE.read_text()
    by_policy = {each.policy: each for each in found}
    assert by_policy["evidence"].failures == 0, by_policy["evidence"].worst()
    assert by_policy["evidence"].right + 30 > by_policy["evidence"].runs
    assert all(by_policy[name].failures for name in POLICIES[:3])
    again = "balloon-plugin compare --matrix --markdown docs/defects.md"
    assert report.replaced(text, "matrix", report.in_markdown(found)) == text, again
    assert report.replaced(text, "limits", report.limits_in_markdown()) == text, again
