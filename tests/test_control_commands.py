"""Every command: what it does to a device, and what it answers."""

from __future__ import annotations

import pytest
from control_kit import RAM, monitor_of, say
from fakes import OPEN, RAM_PAGES, REFUSING, SHUT, ScriptedPolicy, follow, rig

from balloon_plugin.control.commands import COMMANDS
from balloon_plugin.events import Answer, Defect, Evidence, Gate, Judgement, Verdict

# --- QEMU's -------------------------------------------------------------------------


def test_balloon_says_what_the_guest_keeps():
    made = rig(ScriptedPolicy(follow))

    answer = say(monitor_of(made.device), "balloon", value=RAM - 16 * 4096)

    assert answer == {"answer": "accepted", "reason": "", "requested": 16}
    assert made.target() == 16


def test_a_part_of_a_page_is_not_the_guests():
    made = rig(ScriptedPolicy(follow))

    say(monitor_of(made.device), "balloon", value=RAM - 1)

    assert made.target() == 1


def test_a_guest_cannot_keep_more_than_it_has():
    made = rig(ScriptedPolicy(follow))

    answer = say(monitor_of(made.device), "balloon", value=10**30)

    assert answer["requested"] == 0


def test_a_target_that_waits_is_said_to_wait():
    answer = say(monitor_of(rig(ScriptedPolicy(SHUT)).device), "balloon", value=0)

    assert answer == {"answer": "deferred", "reason": "wait", "requested": RAM_PAGES}


def test_a_target_that_is_refused_is_an_error():
    answer = say(monitor_of(rig(ScriptedPolicy(REFUSING)).device), "balloon", value=0)

    assert answer == {"class": "GenericError", "desc": "the target is refused: never"}


@pytest.mark.parametrize("value", [None, 1.5, "1G", True, [1]])
def test_a_value_is_a_whole_number(value):
    made = rig(ScriptedPolicy(follow))

    answer = say(monitor_of(made.device), "balloon", value=value)

    assert answer["desc"] == "'value' must be a whole number"
    assert made.device.query().requested == 0


def test_a_value_is_not_negative():
    answer = say(monitor_of(rig(ScriptedPolicy(follow)).device), "balloon", value=-1)

    assert answer["desc"] == "'value' must be the guest's memory in bytes, 0 or more"


def test_before_a_front_end_nobody_knows_what_the_guest_could_keep():
    made = rig(ScriptedPolicy(follow))
    made.device.set_target(7)
    made.host.plug(())
    made.device.guest_changed()

    answer = say(monitor_of(made.device), "balloon", value=4096)

    assert answer["class"] == "DeviceNotActive"
    assert "not known before a front end connects" in answer["desc"]
    assert made.device.query().requested == 7


def test_query_balloon_shows_what_the_guest_has():
    made = rig(ScriptedPolicy(OPEN))
    made.write_actual(16)

    answer = say(monitor_of(made.device), "query-balloon")

    assert answer == {"actual": RAM - 16 * 4096}


def test_the_pages_of_a_test_are_not_shown_as_ballooned():
    made = rig(ScriptedPolicy(SHUT))
    made.write_actual(16)

    answer = say(monitor_of(made.device), "query-balloon")

    assert answer == {"actual": RAM}


def test_without_a_driver_there_is_no_balloon_to_query():
    answer = say(monitor_of(rig().device), "query-balloon")

    assert answer["class"] == "DeviceNotActive"


def test_the_version_is_that_of_the_greeting():
    answer = say(monitor_of(), "query-version")

    assert answer["qemu"] == {"major": 1, "minor": 2, "micro": 3}


# --- our own ------------------------------------------------------------------------


def test_the_status_is_whole():
    made = rig(ScriptedPolicy(Gate(16, reclaim=True, targets=Answer.ACCEPTED)))
    made.inflate(1, 2, 3)

    answer = say(monitor_of(made.device), "query-balloon-status")

    assert answer.keys() == {"id", *type(made.device.query()).__slots__}
    assert (answer["advertised"], answer["reclaimed"]) == (16, 3)
    assert answer["gate"]["targets"] == "accepted"
    assert answer["verdict"]["judgement"] == "good"


def test_the_verdict_comes_with_its_evidence():
    policy = ScriptedPolicy()
    policy.verdict = Verdict(
        Judgement.BUGGY,
        "BUGGY",
        (Defect.PFN_WIDTH,),
        (Evidence("actual = 256", "It took more."),),
    )

    answer = say(monitor_of(rig(policy).device), "query-balloon-verdict")

    assert answer == {
        "judgement": "buggy",
        "state": "BUGGY",
        "defects": ["PFN_WIDTH"],
        "evidence": [{"event": "actual = 256", "shows": "It took more."}],
    }


def test_every_command_is_listed():
    answer = say(monitor_of(rig().device), "query-commands")

    assert {"name": "balloon"} in answer
    assert {each["name"] for each in answer} == {*COMMANDS, "qmp_capabilities"}


def test_what_the_device_cannot_do_is_answered():
    made = rig()
    made.device.unrealize()

    answer = say(monitor_of(made.device), "query-balloon-status")

    assert answer["desc"].startswith("the device has no host")


# --- arguments ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "arguments", "desc"),
    [
        ("balloon", {}, "'value' is missing: it is a whole number"),
        ("balloon", {"value": 0, "x": 1}, "'x' is no argument of this command"),
        ("balloon", {"value": 0, "id": 1}, "'id' must be a text"),
        ("query-commands", {"id": "a"}, "'id' is no argument of this command"),
    ],
)
def test_arguments_are_checked_before_anything_is_done(command, arguments, desc):
    made = rig(ScriptedPolicy(follow))

    answer = say(monitor_of(made.device), command, **arguments)

    assert answer == {"class": "GenericError", "desc": desc}
    assert made.device.query().requested == 0


# --- several guests -----------------------------------------------------------------


def test_guests_are_listed():
    answer = say(monitor_of(rig().device, rig().device), "query-balloon-guests")

    assert answer == [
        {"id": "a", "qom-path": "/machine/peripheral/a"},
        {"id": "b", "qom-path": "/machine/peripheral/b"},
    ]


@pytest.mark.parametrize("name", ["b", "/machine/peripheral/b"])
def test_a_command_is_for_the_guest_that_it_names(name):
    a, b = rig(ScriptedPolicy(follow)), rig(ScriptedPolicy(follow))

    say(monitor_of(a.device, b.device), "balloon", value=0, id=name)

    assert (a.target(), b.target()) == (0, RAM_PAGES)


def test_of_several_guests_one_must_be_named():
    answer = say(monitor_of(rig().device, rig().device), "query-balloon")

    assert answer == {
        "class": "GenericError",
        "desc": "'id' must name a guest; query-balloon-guests lists them",
    }


def test_a_guest_that_does_not_exist_is_an_error():
    answer = say(monitor_of(rig().device), "query-balloon-status", id="/machine/a")

    assert answer == {
        "class": "DeviceNotFound",
        "desc": "there is no guest '/machine/a'; query-balloon-guests lists them",
    }
