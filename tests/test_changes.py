from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.hosts.changes import apply, difference

VALUES = st.recursive(
    st.none() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
)


@given(VALUES, VALUES)
def test_a_change_leads_from_the_old_value_to_the_new(old, new):
    before = json.dumps(old)

    change = difference(old, new)

    if change is None:
        assert old == new
    else:
        assert apply(json.loads(json.dumps(change)), old) == new
    assert json.dumps(old) == before


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, {"b": [3]}),
        ({"a": 1, "b": 2}, {"a": 1}, {"b": None}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": None}}, {"a": {"c": [None]}}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": None}}),
        ({}, {"a": None}, {"a": [None]}),
        ([1, 2], [1, 2, 3], [[1, 2, 3]]),
        (None, {}, [{}]),
    ],
)
def test_a_change_has_only_what_differs(old, new, change):
    assert difference(old, new) == change


class Unread(dict):
    """An object into which nobody may look."""

    def items(self):
        raise AssertionError


def test_parts_that_are_the_same_object_are_not_looked_into():
    part = Unread(a=1)

    assert difference({"part": part, "b": 1}, {"part": part, "b": 2}) == {"b": [2]}


@pytest.mark.parametrize(
    ("change", "old"),
    [(None, {}), ([], {}), ([1, 2], {}), ({"a": 1}, {}), ({"a": [1]}, []), (1, {})],
)
def test_what_is_no_change_is_refused(change, old):
    with pytest.raises(ValueError, match="a change is not of the value before it"):
        apply(change, old)
