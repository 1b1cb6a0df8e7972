from __future__ import annotations

import pytest

from balloon_plugin.boot.plan import Ending, Plan, amount, pages
from balloon_plugin.errors import HostError


def test_a_plan_has_defaults_that_fit_together():
    plan = Plan("probe")

    assert pages(plan.target) == "128 MiB"
    assert amount(plan.memory) == "512 MiB"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"target": 0}, "at least one page"),
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"target": 512 * 256}, "give the guest at least 608 MiB"),
    ],
)
def test_a_plan_that_cannot_work_says_what_would(values, sentence):
    with pytest.raises(HostError, match=sentence):
        Plan("probe", **values)


@pytest.mark.parametrize(
    ("ending", "code"),
    [(Ending.REACHED, 0), (Ending.REFUSED, 0), (Ending.FAILED, 1)],
)
def test_a_refusal_is_no_failure(ending, code):
    assert ending.exit_code == code


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (4096, "4 KiB"),
        (16 * 4096, "64 KiB"),
        (5 << 19, "2.5 MiB"),
        (128 << 20, "128 MiB"),
        ((128 << 20) + 4096, "128 MiB"),
    ],
)
def test_sizes_are_shown_for_people(size, text):
    assert amount(size) == text
