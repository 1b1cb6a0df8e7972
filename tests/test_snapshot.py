"""The saved form: whatever is not exactly that is refused with one kind of error."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict

import pytest
from fakes import opened, rig
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.errors import HostError
from balloon_plugin.events import Translation
from balloon_plugin.snapshot import VERSION, pack, unpack

PARTS = rig().device.save()
del PARTS["version"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["version", *PARTS]) | st.text(), inner)
    ),
    max_leaves=10,
)
WRONG_NUMBERS = [None, -1, 2**32, 1.0, "16", True, [], {}]


def with_part(path, value):
    state = copy.deepcopy(pack(**PARTS))
    *way, last = path
    place = state
    for name in way:
        place = place[name]
    place[last] = value
    return state


VERSION_1 = {
    "version": 1,
    "config": "00" * 16,
    "actual": 256,
    "poison_val": 0,
    "faults": 1,
    "last_fault": "3 page numbers are not in RAM",
    "features": 1 << 32 | 1 << 28 | 1,
    "ready": True,
    "ledger": {"ballooned": [[100, 256]], "reclaimed": [[100, 200]]},
    "policy": {
        "requested": 256,
        "accepted": True,
        "policy": "scripted",
        "policy_state": {"scripted": 1},
    },
}
"""What the first release of this form wrote."""

UNCHANGED = VERSION_1.keys() - {"version", "policy"}
NOT_SHOWN = {"advertised": None, "read": None, "translation": asdict(Translation())}


def test_the_form_has_the_version_that_is_documented():
    assert VERSION == 4


def test_version_1_is_read():
    parts = unpack(copy.deepcopy(VERSION_1))

    assert set(parts) == set(PARTS)
    assert parts["policy"] == VERSION_1["policy"] | NOT_SHOWN
    assert {name: parts[name] for name in VERSION_1 if name in UNCHANGED} == {
        name: VERSION_1[name] for name in UNCHANGED
    }
    assert (parts["offered"], parts["target"]) == (1, 0)


def test_version_2_had_another_record_of_pages():
    parts = PARTS | {"ledger": VERSION_1["ledger"], "offered": 5}

    assert unpack({"version": 2, **parts}) == parts


def test_version_3_did_not_say_how_the_driver_was_read():
    parts = PARTS | {"policy": VERSION_1["policy"]}

    assert unpack({"version": 3, **parts}) == PARTS | {
        "policy": VERSION_1["policy"] | NOT_SHOWN
    }


def test_an_older_version_can_be_damaged():
    with pytest.raises(HostError, match=r"damaged \(policy\)"):
        unpack({"version": 3, **PARTS, "policy": []})


@pytest.mark.parametrize("name", NOT_SHOWN)
def test_version_4_has_to_say_it(name):
    policy = {key: value for key, value in PARTS["policy"].items() if key != name}

    with pytest.raises(HostError, match=r"damaged \(policy\)"):
        unpack({"version": 4, **PARTS, "policy": policy})


def test_version_1_of_a_driver_that_accepted_nothing_yet_is_read():
    assert unpack(VERSION_1 | {"features": None})["offered"] is None


@pytest.mark.parametrize("features", ["1", -1, 1.0, []])
def test_version_1_can_be_damaged(features):
    with pytest.raises(HostError, match=r"damaged \((offered, )?features\)"):
        unpack(VERSION_1 | {"features": features})


@pytest.mark.parametrize(
    "state", [VERSION_1, {**PARTS, **VERSION_1, "version": 2}], ids=["1", "2"]
)
def test_a_device_goes_on_from_an_older_version(state):
    made = opened()

    made.device.load(state)

    shown = made.device.query()
    assert (shown.ballooned, shown.reclaimed, shown.actual) == (256, 200, 256)
    assert shown.stats is None


def test_what_is_packed_is_unpacked():
    state = pack(**PARTS)

    assert state["version"] == VERSION
    assert unpack(json.loads(json.dumps(state))) == PARTS


def test_what_an_unknown_writer_added_is_dropped():
    state = pack(**PARTS) | {"colour": "red"}

    assert unpack(state) == PARTS


@pytest.mark.parametrize("features", [None, 0, 2**64 - 1])
@pytest.mark.parametrize("policy_state", [None, {}, {"deep": [1]}])
@pytest.mark.parametrize("number", [0, 2**32 - 1])
def test_all_values_that_a_device_has_are_taken(features, policy_state, number):
    policy = PARTS["policy"] | {"policy_state": policy_state}
    policy |= {"requested": number, "advertised": number, "read": number}
    parts = PARTS | {"features": features, "policy": policy}
    parts |= {"actual": number, "poison_val": number, "target": number}
    parts |= {"ready": False}

    assert unpack(pack(**parts)) == parts


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((["version"], value) for value in WRONG_NUMBERS),
        *((["actual"], value) for value in WRONG_NUMBERS),
        *((["poison_val"], value) for value in WRONG_NUMBERS),
        *((["target"], value) for value in WRONG_NUMBERS),
        *((["offered"], value) for value in [-1, 2**24, 1.0, "0", True, []]),
        *((["features"], value) for value in [-1, 2**64, 1.0, "0", True, []]),
        *((["stats"], value) for value in [None, [], {}, 0]),
        *((["stats", "interval"], value) for value in WRONG_NUMBERS),
        *((["stats", "begun"], value) for value in [None, 0, 1]),
        *((["stats", "known"], value) for value in [None, 0, "yes"]),
        *((["stats", "age"], value) for value in [None, "1", True, 1e999, 1e999 * 0]),
        *(
            (["stats", "values"], value)
            for value in [0, {}, [1], [[1]], [[1, 2, 3]], [[1 << 16, 0]], [[0, -1]]]
        ),
        *((["hints"], value) for value in [None, [], {}, 0]),
        *((["hints", "last"], value) for value in [*WRONG_NUMBERS, 0]),
        *((["hints", "command"], value) for value in [*WRONG_NUMBERS, 2]),
        *((["hints", "answer"], value) for value in [-1, 2**32, 1.0, True, []]),
        *((["hints", "pages"], value) for value in [None, -1, 2**64, 1.0]),
        *((["ready"], value) for value in [None, 0, 1, "yes"]),
        *((["config"], value) for value in [None, 0, "", "0" * 31, "g" * 32, "0" * 33]),
        *((["faults"], value) for value in [None, -1, 2**64, 1.0, True]),
        *((["last_fault"], value) for value in [None, 0, []]),
        *((["ledger"], value) for value in [None, [], 0, ""]),
        *((["policy"], value) for value in [None, [], {}, "probe"]),
        *((["policy", "requested"], value) for value in WRONG_NUMBERS),
        *(
            (["policy", name], value)
            for name in ("advertised", "read")
            for value in [-1, 2**32, 1.0, True, []]
        ),
        *((["policy", "policy"], value) for value in [None, 1, []]),
        *((["policy", "translation"], value) for value in [None, {}, [], 1]),
        *(
            (["policy", "translation", name], value)
            for name in ("slot_entries", "pages_per_pfn", "pages_per_unit")
            for value in [None, 0, 2**18 + 1, 1.0, True]
        ),
        *(
            (["policy", "translation", name], value)
            for name in ("swap_pfns", "swap_actual")
            for value in [None, 0, 1]
        ),
        (["policy", "translation", "unknown"], 1),
        *((["policy", "policy_state"], value) for value in [0, [], "", True]),
    ],
)
def test_a_damaged_part_is_named(path, value):
    state = with_part(path, value)

    with pytest.raises(HostError, match=rf"damaged \({path[0]}\)"):
        unpack(state)


@pytest.mark.parametrize("name", ["version", *PARTS])
def test_a_missing_part_is_named(name):
    state = pack(**PARTS)
    del state[name]

    with pytest.raises(HostError, match=rf"damaged \({name}\)"):
        unpack(state)


@pytest.mark.parametrize(
    ("part", "name"),
    [(part, name) for part in ("policy", "stats", "hints") for name in PARTS[part]],
)
def test_a_part_is_whole_or_damaged(part, name):
    state = copy.deepcopy(pack(**PARTS))
    del state[part][name]

    with pytest.raises(HostError, match=rf"damaged \({part}\)"):
        unpack(state)


def test_all_that_is_damaged_is_named():
    state = pack(**PARTS) | {"actual": -1, "ready": None}

    with pytest.raises(HostError, match=r"damaged \(actual, ready\)"):
        unpack(state)


@pytest.mark.parametrize("version", [VERSION + 1, VERSION + 100, 2**31])
def test_a_newer_version_is_refused_before_it_is_understood(version):
    state = {"version": version, "whatever": "it will be"}

    with pytest.raises(
        HostError, match=f"version {version}.*version {VERSION}"
    ) as error:
        unpack(state)

    assert "newer balloon_plugin" in str(error.value)


@given(JSON)
def test_any_json_is_a_snapshot_or_a_host_error(value):
    try:
        parts = unpack(value)
    except HostError:
        return

    assert set(parts) == set(PARTS)


@given(st.sampled_from(["version", *PARTS]), JSON)
def test_any_json_in_place_of_a_part_too(name, value):
    try:
        parts = unpack(pack(**PARTS) | {name: value})
    except HostError:
        return

    assert set(parts) == set(PARTS)
