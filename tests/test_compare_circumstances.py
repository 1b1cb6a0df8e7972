"""The names of circumstances: what each changes, how they compose, and contradict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.compare.circumstance import (
    TARGET,
    USUAL,
    Act,
    Circumstance,
    Site,
    Stop,
    Turn,
)
from balloon_plugin.compare.circumstances import find, listing
from balloon_plugin.errors import HostError
from balloon_plugin.guests.access import Access
from balloon_plugin.guests.traits import Allocation, Conditions
from balloon_plugin.layouts import Feature

STATS = Feature.VIRTIO_BALLOON_F_STATS_VQ.mask
OOM = Feature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM.mask
ALL = 0b111111
"""All features of the specification (§5.5.3)."""


# --- one name -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("usual", {}),
        ("contiguous", {"conditions": {"allocation": Allocation.CONTIGUOUS}}),
        (
            "scattered",
            {"conditions": {"allocation": Allocation.SCATTERED, "seed": 0}},
        ),
        (
            "scattered-7",
            {"conditions": {"allocation": Allocation.SCATTERED, "seed": 7}},
        ),
        ("low-memory-0", {"conditions": {"first_batch": 0}}),
        ("low-memory-200", {"conditions": {"first_batch": 200}}),
        (
            "never-more-than-3",
            {"conditions": {"most": 3}, "hopeless": "there is no memory to be had"},
        ),
        ("aligned-queues", {"conditions": {"queue_align": 65536}}),
        ("byte-config", {"conditions": {"access": Access.BYTEWISE}}),
        ("word-config", {"conditions": {"access": Access.WORD}}),
        ("whole-config", {"conditions": {"access": Access.WHOLE}}),
        ("s390-bytes-0-to-7", {"conditions": {"access": Access.CHANNEL}}),
        ("legacy-bus", {"site": {"legacy": True}}),
        ("held-kicks", {"site": {"holds_early_kicks": True}}),
        ("host-64k", {"site": {"host_page_size": 65536}}),
        ("host-knows-page-size", {"site": {"tells_page_size": True}}),
        ("host-knows-nothing", {"site": {"tells_byte_order": False}}),
        ("ram-at-1g", {"site": {"ram_start": 1 << 30}}),
        ("ram-1g", {"site": {"ram_size": 1 << 30}}),
        ("all-features", {"site": {"features": ALL}}),
        (
            "page-poison",
            {"conditions": {"page_poison": True}, "site": {"features": ALL}},
        ),
        ("unaligned-target", {"target": TARGET - 3}),
        (
            "stats-polling",
            {
                "site": {"features": STATS, "polls_stats": True},
                "turns": tuple(Turn(Act.STATS, stop) for stop in Stop),
            },
        ),
        (
            "oom-deflate",
            {
                "site": {"features": OOM},
                "turns": (
                    Turn(Act.OOM, Stop.INFLATING),
                    Turn(Act.OOM, Stop.GROWING),
                    Turn(Act.OOM, Stop.FULL),
                ),
            },
        ),
        ("retarget-in-step-12", {"turns": (Turn(Act.RETARGET, 12),)}),
        (
            "oom-in-full",
            {"site": {"features": OOM}, "turns": (Turn(Act.OOM, Stop.FULL),)},
        ),
        (
            "stats-in-idle",
            {"site": {"features": STATS}, "turns": (Turn(Act.STATS, Stop.IDLE),)},
        ),
        (
            "kexec-into:linux-3.3-be-64k",
            {"turns": (Turn(Act.KEXEC, Stop.FULL, "linux-3.3-be-64k"),)},
        ),
        (
            "reboot-into:linux-3.3-be-64k-in-idle",
            {"turns": (Turn(Act.REBOOT, Stop.IDLE, "linux-3.3-be-64k"),)},
        ),
        (
            "kexec-into:no-driver-in-step-5",
            {"turns": (Turn(Act.KEXEC, 5, "no-driver"),)},
        ),
    ],
)
def test_a_name_changes_one_thing_and_nothing_else(name, change):
    change = dict(change)
    conditions = Conditions(**change.pop("conditions", {}))
    site = Site(**change.pop("site", {}))

    assert find(name) == Circumstance(
        name=name, conditions=conditions, site=site, **change
    )


@pytest.mark.parametrize("stop", Stop, ids=lambda stop: stop.text)
@pytest.mark.parametrize(
    "act", [act for act in Act if act not in (Act.REBOOT, Act.KEXEC)]
)
def test_every_act_has_a_name_at_every_moment(act, stop):
    name = act.name.lower().replace("_", "-")

    assert find(f"{name}-in-{stop.text}").turns == (Turn(act, stop),)


def test_the_usual_is_what_there_is_without_a_name():
    assert find("usual") == USUAL


def test_what_happens_is_what_is_needed():
    special = find("hibernation-in-idle+oom-in-full+hibernation-in-full")

    assert special.needs == {Act.HIBERNATION, Act.OOM}


# --- several names ------------------------------------------------------------------


def test_names_compose():
    special = find("low-memory-10+scattered-2+host-64k+retarget-in-full+usual")

    assert special == Circumstance(
        name="low-memory-10+scattered-2+host-64k+retarget-in-full+usual",
        conditions=Conditions(first_batch=10, allocation=Allocation.SCATTERED, seed=2),
        site=Site(host_page_size=65536),
        turns=(Turn(Act.RETARGET, Stop.FULL),),
    )


def test_features_add_up():
    special = find("stats-in-idle+oom-in-full")

    assert special.site.features == STATS | OOM


def test_acts_keep_the_order_of_their_names():
    special = find("kexec-into:no-driver+stats-in-empty+kexec-into:linux-3.4-be-4k")

    assert [turn.act for turn in special.turns] == [Act.KEXEC, Act.STATS, Act.KEXEC]
    assert special.turns[2].guest == "linux-3.4-be-4k"


ONCE = ["usual", "low-memory-10", "scattered", "host-64k", "ram-1g", "page-poison"]
ONCE += ["oom-deflate", "stats-polling", "held-kicks", "unaligned-target"]


@given(
    st.permutations(ONCE).flatmap(
        lambda all_: st.integers(1, 10).map(lambda n: all_[:n])
    )
)
def test_but_for_acts_the_order_of_names_is_no_matter(names):
    one, other = find("+".join(names)), find("+".join(sorted(names)))

    assert (one.conditions, one.site, one.target) == (
        other.conditions,
        other.site,
        other.target,
    )
    assert sorted(map(repr, one.turns)) == sorted(map(repr, other.turns))


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("low-memory-0+low-memory-10", "first_batch"),
        ("scattered+contiguous", "allocation"),
        ("scattered+scattered-2", "seed"),
        ("byte-config+s390-bytes-0-to-7", "access"),
    ],
)
def test_names_that_contradict_each_other_are_refused(text, about):
    with pytest.raises(HostError) as caught:
        find(text)

    assert str(caught.value) == (
        f"the circumstance {text!r} contradicts itself about {about}: "
        "leave one of its names out"
    )


def test_to_say_the_same_twice_is_no_contradiction():
    assert find("host-64k+host-64k").site == Site(host_page_size=65536)


# --- names that do not exist --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("low-memory", "'low-memory'; did you mean low-memory-"),
        ("low-memory-ten", "did you mean low-memory-"),
        ("usual+skattered", "'skattered'; did you mean scattered"),
        ("save-restore-in-testing", "did you mean save-restore-in-"),
        ("qqqq", "'qqqq'; --circumstances lists all"),
        ("", "''; --circumstances lists all"),
        ("kexec-into:linux-9-be-4k", "there is no guest 'linux-9-be-4k'"),
        ("kexec-into:linux-3.3-be-4k-in-time", "there is no guest"),
    ],
)
def test_a_name_that_does_not_exist_is_answered_with_what_is_near(text, complaint):
    with pytest.raises(HostError) as caught:
        find(text)

    assert complaint in str(caught.value)


# --- the list -----------------------------------------------------------------------


def test_all_names_and_forms_are_listed_once_each_with_a_line():
    lines = list(listing())

    forms = [form for form, _ in lines]
    assert len(set(forms)) == len(forms)
    assert all(summary for _, summary in lines)
    moments = [form for form in forms if form.startswith("MOMENT ")]
    assert moments == [*(f"MOMENT {stop.text}" for stop in Stop), "MOMENT step-N"]
    for act in Act:
        name = act.name.lower().replace("_", "-")
        assert any(form.startswith((f"{name}-in-", f"{name}-into:")) for form in forms)


def test_what_is_listed_without_a_blank_can_be_found():
    names = [form for form, _ in listing() if not any(map(str.isupper, form))]

    assert [find(name).name for name in names] == names
    assert len(names) > 15
