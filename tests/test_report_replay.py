"""The report of a replay: a recorded guest under several policies."""

from __future__ import annotations

import re

import pytest
from record_traces import path_of

from balloon_plugin.replay import conclude, replay
from balloon_plugin.report import replay_page
from balloon_plugin.report.page import Picture, render
from balloon_plugin.trace import decode, read

WORDS = ["balloon-plugin", "replay", "a.trace"]


@pytest.fixture(scope="module")
def page():
    header, moments = decode(read(path_of("arm64be-64k.pre34.probe")))
    known, replays = list(moments), []
    for policy in ("probe", "evidence"):
        steps = list(replay(header, known, policy))
        replays.append((conclude(header, steps), steps))
    return replay_page(header, replays, WORDS)


def test_it_says_how_each_policy_compares_with_the_recording(page):
    assert page.title.endswith("recorded under probe")
    assert page.reasons == [
        "`probe` comes to the same as it did when it was recorded.",
        "`evidence` would have done otherwise 2 times.",
    ]


def test_every_session_is_a_row_for_each_policy(page):
    (table,) = page.sections[0].blocks

    assert [row[0].text for row in table.rows] == ["probe", "evidence"]
    assert [row[2].text for row in table.rows] == ["buggy", "buggy"]
    assert "would show 33" in table.rows[1][4].text


def test_what_happened_is_drawn_with_its_times(page):
    picture = next(one for one in page.sections[1].blocks if isinstance(one, Picture))

    assert "as recorded under probe" in picture.caption
    assert re.search(r">\d\.\d\d s<", picture.svg)
    assert "actual 0" in picture.svg
    assert "asked for a balloon" not in picture.svg


def test_it_is_a_page_with_its_evidence_and_its_command(page):
    text = render(page)

    assert "actual = 256: Buggy guest detected" in text
    assert text.count("balloon-plugin replay a.trace") == 2


def test_it_names_the_policies_that_it_was_run_against(page):
    assert page.about.endswith(" s, run against probe, evidence.")


def test_words_that_would_run_into_others_are_left_out():
    header, moments = decode(read(path_of("arm64be-64k.stock.evidence")))
    steps = list(replay(header, list(moments), "evidence"))
    page = replay_page(header, [(conclude(header, steps), steps)], WORDS)
    (svg,) = [one.svg for one in page.sections[1].blocks if isinstance(one, Picture)]

    drawn = re.findall(r">asked for (\d+)<", svg)
    told = re.findall(r"asked for (\d+) pages", svg)
    assert drawn
    assert len(drawn) < len(set(told))
