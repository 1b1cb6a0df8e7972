"""What came of a sweep: counted, compared guest by guest, and as records."""

from __future__ import annotations

import csv
import io
import json

import pytest
from fleets import result

from balloon_plugin.compare.records import as_csv
from balloon_plugin.sweep import decide
from balloon_plugin.sweep.export import as_document
from balloon_plugin.sweep.measures import HARM, HARMED, MEASURES, RIGHT, TAKEN

FINE, BAD = {}, {"harm": 16, "right": False}


@pytest.fixture
def found():
    """Ninety guests that both policies do well with, and ten that one harms."""
    return result(["one", "other"], ("a", 90, (FINE, FINE)), ("b", 10, (BAD, FINE)))


def test_a_rate_counts_every_guest_that_was_drawn(found):
    rate = found.rate("one", HARMED)

    assert (rate.total, rate.estimate.value) == (10, 0.1)
    assert 0.05 < rate.estimate.low < 0.1 < rate.estimate.high < 0.18


def test_an_amount_is_for_each_guest(found):
    rate = found.rate("one", HARM)

    assert (rate.total, rate.estimate.value) == (160, 1.6)


def test_an_amount_is_never_less_than_nothing():
    found = result(["one"], ("a", 9, [FINE]), ("b", 1, [{"taken": 100}]))

    assert found.rate("one", TAKEN).estimate.low == 0


def test_there_is_a_rate_for_each_policy_and_measure(found):
    assert [(rate.policy, rate.measure) for rate in found.rates] == [
        (policy, measure) for policy in ("one", "other") for measure in MEASURES
    ]


def test_a_difference_is_of_the_same_guests():
    # Both harm one in ten, and never the same one.
    groups = ("a", 10, (BAD, FINE)), ("b", 10, (FINE, BAD)), ("c", 80, (FINE, FINE))
    found = result(["one", "other"], *groups)

    estimate = found.difference("one", "other", HARMED).estimate

    assert estimate.value == 0
    assert estimate.low < 0 < estimate.high
    # As wide as if 20 of 100 had differed, which they did.
    assert estimate.high > 0.08


def test_policies_that_fail_on_the_same_guests_differ_by_little():
    found = result(["one", "other"], ("a", 10, (BAD, BAD)), ("c", 90, (FINE, FINE)))

    assert found.difference("one", "other", HARMED).estimate.high < 0.04


def test_a_difference_of_amounts_is_paired_too():
    groups = [
        (f"a{taken}", 10, ({"taken": taken}, {"taken": taken + 4}))
        for taken in (0, 100, 1000)
    ]

    estimate = result(["one", "other"], *groups).difference("other", "one", TAKEN)

    assert estimate.estimate.value == estimate.estimate.low == 4


def test_each_class_is_counted_for_itself(found):
    first, second = found.kinds

    assert (first.name, first.draws, second.name, second.draws) == ("a", 90, "b", 10)
    assert (first.totals["one", RIGHT], second.totals["one", RIGHT]) == (90, 0)


@pytest.mark.slow
def test_pandas_takes_the_records_as_they_are(found):
    import pandas as pd  # noqa: PLC0415 - quick tests do without it

    frame = pd.DataFrame(found.records())

    harmed = frame[frame.harm_pages > 0].groupby("policy").draws.sum()
    assert harmed.to_dict() == {"one": 10}
    assert frame.draws.sum() == 2 * 100
    assert {str(frame[name].dtype) for name in ("draws", "harm_pages")} == {"int64"}
    assert {"class", "guest", "circumstance", "verdict", "right"} <= set(frame)


def test_a_document_holds_everything_and_json_can_carry_it(found):
    document = json.loads(json.dumps(as_document(found, decide(found))))

    assert document["decision"]["choices"] == ["other"]
    assert document["decision"]["outsiders"] == ["one"]
    rate = next(one for one in document["rates"] if one["measure"] == "harmed")
    assert (rate["policy"], rate["total"], rate["value"]) == ("one", 10, 0.1)
    assert rate["unit"] == "share"
    assert len(document["differences"]) == len(MEASURES)
    assert [kind["draws"] for kind in document["classes"]] == [90, 10]
    assert len(document["rows"]) == 4


def test_a_price_without_an_upper_end_is_null():
    groups = ("a", 1, (BAD, {"usable": False})), ("b", 99, (FINE, FINE))
    found = result(["one", "other"], *groups)

    (price,) = as_document(found, decide(found))["decision"]["prices"]

    assert price["unusable_for_one_harmed"]["high"] is None


def test_csv_has_a_line_for_each_record(found):
    lines = list(csv.DictReader(io.StringIO(as_csv(found.records()))))

    assert [line["draws"] for line in lines] == ["90", "90", "10", "10"]
    assert [line["policy"] for line in lines] == ["one", "other"] * 2
    assert lines[2]["harm_pages"] == "16"
