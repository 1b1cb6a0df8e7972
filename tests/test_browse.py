"""Going through a replay: keys move, and a page has what is needed and fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_traces import load

from balloon_plugin.browse import HELP, Browser
from balloon_plugin.replay import replay

NAME = "arm64be-64k.pre34.evidence"


def steps_of(policy, name=NAME):
    return list(replay(*load(name), policy))


STEPS = steps_of("probe")
SAME = steps_of("evidence")
KEYS = st.text(st.sampled_from("npfbgGvdx"), max_size=30)


@pytest.fixture
def browser():
    return Browser(STEPS, "title", "evidence")


def at(browser, keys):
    for key in keys:
        assert browser.press(key)
    return browser.place


# --- keys ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ("", 0),
        ("n", 1),
        ("nnp", 1),
        ("p", 0),
        ("f", 10),
        ("ffb", 10),
        ("G", len(STEPS) - 1),
        ("Gn", len(STEPS) - 1),
        ("Gg", 0),
        ("x", 0),
    ],
)
def test_keys_move_and_stop_at_the_ends(browser, keys, place):
    assert at(browser, keys) == place


def test_one_goes_to_the_next_divergence(browser):
    assert at(browser, "d") == next(i for i, s in enumerate(STEPS) if i and s.news)


def test_one_goes_to_the_next_state(browser):
    states = [step.shadow.verdict.state for step in STEPS]

    assert at(browser, "v") == states.index("BUGGY")


def test_where_there_is_no_other_one_stays(browser):
    assert at(browser, "Gvd") == len(STEPS) - 1


def test_one_ends_it(browser):
    assert not browser.press("q")


# --- pages --------------------------------------------------------------------------


def test_a_page_has_the_event_and_what_came_of_it(browser):
    browser.press("v")

    page = browser.page(120, 40)

    text = "\n".join(page)
    number = STEPS[browser.place].shadow.events
    assert page[0] == f"event {number} of {STEPS[-1].shadow.events}  title"
    assert "driver writes actual 256" in next(x for x in page if x.startswith(">"))
    assert "evidence  state  " in text
    assert "probe     gate   shows 0, does not reclaim, targets refused" in text
    assert "probe     state  BUGGY (buggy): the driver reads num_pages in" in text
    assert "a guess since event" in text
    assert "- actual = 256: Buggy guest detected" in text
    assert page[-1] == HELP


def test_the_same_policy_is_shown_once():
    page = Browser(SAME, "title", "evidence").page(100, 30)

    assert sum("gate   " in line for line in page) == 1


def test_where_it_strays_that_is_shown():
    header, moments = load(NAME)
    cut = [moment for moment in moments if "Gate" not in type(moment.entry).__name__]
    browser = Browser(list(replay(header, cut)), "title", "evidence")

    text = "\n".join(browser.page(100, 40))

    assert "* strays: the gate was" in text
    assert "now       gate   shows" in text


@given(KEYS, st.integers(20, 200), st.integers(6, 60))
def test_a_page_fits_its_terminal(keys, width, height):
    browser = Browser(STEPS, "title", "evidence")
    at(browser, keys)

    page = browser.page(width, height)

    assert len(page) == height
    assert max(map(len, page)) <= width


def test_the_keys_are_named_on_the_narrowest_usual_terminal():
    assert len(HELP) <= 80


def test_on_a_usual_terminal_the_evidence_is_there():
    browser = Browser(SAME, "title", "evidence")
    browser.press("G")
    browser.press("p")
    browser.press("p")

    assert any("hold: It is shown" in line for line in browser.page(80, 24))
