from __future__ import annotations

import itertools

import pytest

from balloon_plugin.errors import HostError
from balloon_plugin.features import DeviceOptions, config_size, queues
from balloon_plugin.layouts import Feature, Queue

NAMES = {
    "must_tell_host": 0,
    "statistics": 1,
    "deflate_on_oom": 2,
    "hinting": 3,
    "page_poison": 4,
    "reporting": 5,
}
STATS, HINT, REPORTING = 1 << 1, 1 << 3, 1 << 5
POISON = 1 << 4


# --- options ------------------------------------------------------------------------


def test_statistics_are_all_that_is_offered_by_default():
    assert DeviceOptions().features == STATS


@pytest.mark.parametrize("name", NAMES)
def test_each_option_is_a_bit(name):
    nothing = dict.fromkeys(NAMES, False)

    assert DeviceOptions(**nothing | {name: True}).features == 1 << NAMES[name]


def test_options_are_changed_by_their_names():
    options = DeviceOptions().changed(["page-poison", "no-statistics", "hinting"])

    assert options == DeviceOptions(statistics=False, page_poison=True, hinting=True)


def test_the_last_word_on_an_option_counts():
    assert DeviceOptions().changed(["reporting", "no-reporting"]) == DeviceOptions()


@pytest.mark.parametrize("name", ["colour", "no-colour", "no-", "", "changed"])
def test_an_unknown_name_is_answered_with_those_that_there_are(name):
    with pytest.raises(HostError, match="statistics, deflate-on-oom, must-tell-host"):
        DeviceOptions().changed([name])


# --- queues -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "extra"),
    [
        (0, []),
        (STATS, [Queue.STATSQ]),
        (HINT, [Queue.FREE_PAGE_VQ]),
        (REPORTING, [Queue.REPORTING_VQ]),
        (STATS | REPORTING, [Queue.STATSQ, Queue.REPORTING_VQ]),
        (HINT | REPORTING, [Queue.FREE_PAGE_VQ, Queue.REPORTING_VQ]),
        (
            STATS | HINT | REPORTING,
            [Queue.STATSQ, Queue.FREE_PAGE_VQ, Queue.REPORTING_VQ],
        ),
    ],
)
def test_queues_are_numbered_without_gaps(offered, extra):
    assert queues(offered) == (Queue.INFLATEQ, Queue.DEFLATEQ, *extra)


def test_other_features_bring_no_queue():
    brought = (STATS, HINT, REPORTING)
    others = sum(feature.mask for feature in Feature if feature.mask not in brought)

    assert queues(others) == (Queue.INFLATEQ, Queue.DEFLATEQ)


# --- configuration ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("poison", "hint", "size"),
    [(0, 0, 8), (0, HINT, 12), (POISON, 0, 16), (POISON, HINT, 16)],
)
def test_the_space_ends_with_its_last_field(poison, hint, size):
    for others in itertools.accumulate([0, STATS, REPORTING, 1, 4, 1 << 32]):
        assert config_size(poison | hint | others) == size
