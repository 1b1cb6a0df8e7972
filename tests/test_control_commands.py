"""Every command: what it does to a device, and what it answers."""

from __future__ import annotations

import struct

import pytest
from control_kit import NOW, RAM, monitor_of, say
from fakes import (
    OPEN,
    RAM_PAGES,
    REFUSING,
    SHUT,
    STATS_VQ,
    ScriptedPolicy,
    follow,
    opened,
    rig,
)

from balloon_plugin.control.commands import COMMANDS
from balloon_plugin.events import Answer, Defect, Evidence, Gate, Judgement, Verdict
from balloon_plugin.layouts import Queue

VERSION_1, HINT = 1 << 32, 1 << 3

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
    answer = say(monitor_of(rig(ScriptedPolicy(SHUT)).device), "balloon", value=1)

    assert answer == {"answer": "deferred", "reason": "wait", "requested": RAM_PAGES}


def test_a_target_that_is_refused_is_an_error():
    answer = say(monitor_of(rig(ScriptedPolicy(REFUSING)).device), "balloon", value=1)

    assert answer == {"class": "GenericError", "desc": "the target is refused: never"}


@pytest.mark.parametrize("value", [None, 1.5, "1G", True, [1]])
def test_a_value_is_a_whole_number(value):
    made = rig(ScriptedPolicy(follow))

    answer = say(monitor_of(made.device), "balloon", value=value)

    assert answer["desc"] == "'value' must be a whole number"
    assert made.device.query().requested == 0


@pytest.mark.parametrize("value", [0, -1])
def test_no_guest_is_left_without_memory(value):
    made = rig(ScriptedPolicy(follow))

    answer = say(monitor_of(made.device), "balloon", value=value)

    assert answer["desc"].startswith("a guest cannot be left without memory: give ")
    assert made.device.query().requested == 0


def test_before_a_front_end_nobody_knows_what_the_guest_could_keep():
    made = rig(ScriptedPolicy(follow))
    made.device.set_target(7)
    made.host.plug(())
    made.device.guest_changed()

    answer = say(monitor_of(made.device), "balloon", value=4096)

    assert answer["class"] == "DeviceNotActive"
    assert "front end has not connected" in answer["desc"]
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


# --- QEMU's object model ------------------------------------------------------------

PATH = "/machine/peripheral/a"


def a_guest_with_statistics(*stats):
    """Return a rig whose driver has sent statistics a minute ago."""
    made = opened(gate=follow)
    made.device.set_features(VERSION_1 | STATS_VQ)
    made.device.driver_ready()
    sent = b"".join(struct.pack("<HQ", *stat) for stat in stats)
    made.host.queues[Queue.STATSQ].offer_bytes(sent)
    made.device.queue_notify(Queue.STATSQ)
    made.host.clock += 60
    return made


def test_statistics_are_those_of_qemu():
    made = a_guest_with_statistics((4, 1 << 20), (5, 2**64 - 1), (99, 7))

    got = say(monitor_of(made.device), "qom-get", path=PATH, property="guest-stats")

    assert got["last-update"] == int(NOW - 60)
    assert got["stats"].pop("stat-free-memory") == 1 << 20
    assert len(got["stats"]) == 15
    assert {*got["stats"].values()} == {2**64 - 1}


def test_without_statistics_there_was_no_update():
    made = rig()

    got = say(monitor_of(made.device), "qom-get", path="a", property="guest-stats")

    assert got["last-update"] == 0
    assert {*got["stats"].values()} == {2**64 - 1}


def test_the_polling_interval_is_set():
    made = rig()
    monitor = monitor_of(made.device)
    interval = {"path": PATH, "property": "guest-stats-polling-interval"}

    assert say(monitor, "qom-get", **interval) == 0
    assert say(monitor, "qom-set", **interval, value=5) == {}
    assert say(monitor, "qom-get", **interval) == 5


@pytest.mark.parametrize(
    ("path", "name", "value", "kind", "desc"),
    [
        ("a", "guest-stats-polling-interval", "5", "GenericError", "'value' must be a"),
        (
            "a",
            "guest-stats-polling-interval",
            -1,
            "GenericError",
            "statistics cannot",
        ),
        ("a", "guest-stats", 5, "GenericError", "the property 'guest-stats' cannot be"),
        ("a", "colour", 5, "GenericError", "there is no property 'colour'; qom-list "),
        (
            "/machine",
            "guest-stats",
            5,
            "DeviceNotFound",
            "there is no guest ",
        ),
    ],
)
def test_what_cannot_be_set_is_an_error(path, name, value, kind, desc):
    monitor = monitor_of(rig().device)

    answer = say(monitor, "qom-set", path=path, property=name, value=value)

    assert answer["class"] == kind
    assert answer["desc"].startswith(desc)


@pytest.mark.parametrize("path", ["/machine/peripheral", "/machine/peripheral/"])
def test_guests_are_found_where_qemu_keeps_devices(path):
    answer = say(monitor_of(rig().device), "qom-list", path=path)

    assert answer == [{"name": "a", "type": "child<virtio-balloon-device>"}]


def test_properties_are_listed():
    answer = say(monitor_of(rig().device), "qom-list", path=PATH)

    assert [each["name"] for each in answer] == [
        "guest-stats",
        "guest-stats-polling-interval",
    ]


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


def test_evidence_that_is_no_text_becomes_one():
    policy = ScriptedPolicy()
    policy.verdict = Verdict(Judgement.GOOD, "X", (), (Evidence(7, {1, 2}),))
    made = rig(policy)
    made.device.set_inhibited(object())
    monitor = monitor_of(made.device)

    verdict = say(monitor, "query-balloon-verdict")
    status = say(monitor, "query-balloon-status")

    assert verdict["evidence"] == [{"event": "7", "shows": "{1, 2}"}]
    assert status["verdict"] == verdict
    assert status["inhibited"].startswith("<object")


def test_every_command_is_listed():
    answer = say(monitor_of(rig().device), "query-commands")

    assert {"name": "balloon"} in answer
    assert {each["name"] for each in answer} == {*COMMANDS, "qmp_capabilities"}


def test_what_the_device_cannot_do_is_answered():
    made = rig()
    made.device.unrealize()

    answer = say(monitor_of(made.device), "query-balloon-status")

    assert answer["desc"].startswith("the device has no host")


def test_statistics_in_a_status_have_names():
    made = a_guest_with_statistics((4, 1 << 20), (99, 7))

    answer = say(monitor_of(made.device), "query-balloon-status")

    values = {"stat-free-memory": 1 << 20, "tag-99": 7}
    assert answer["stats"] == {"age": 60.0, "values": values}


def test_discards_are_inhibited_and_allowed_again():
    made = rig(ScriptedPolicy(follow))
    monitor = monitor_of(made.device)

    assert say(monitor, "x-inhibit", reason="passthrough") == {}
    assert made.device.query().inhibited == "passthrough"
    assert say(monitor, "x-inhibit", reason=None) == {}
    assert made.device.query().inhibited is None


def test_hinting_is_started_and_stopped():
    made = opened(gate=follow, hinting=True)
    made.device.set_features(VERSION_1 | HINT)
    made.device.driver_ready()
    monitor = monitor_of(made.device)

    command = say(monitor, "x-hinting-start")["command"]
    assert made.device.query().hints.command == command
    assert say(monitor, "x-hinting-stop") == {}
    assert made.device.query().hints.command != command


def test_a_driver_without_hints_cannot_be_asked_for_them():
    answer = say(monitor_of(rig().device), "x-hinting-start")

    assert answer["desc"].startswith("no driver that hints at its free pages is ready")


def test_another_policy_judges_from_now_on():
    made = rig(ScriptedPolicy(follow))

    answer = say(monitor_of(made.device), "x-set-policy", policy="probe:pages=32")

    assert (answer["judgement"], answer["state"]) == ("undecided", "TESTING")
    assert made.device.query().policy == "probe:pages=32"


def test_a_policy_that_does_not_exist_is_an_error():
    answer = say(monitor_of(rig().device), "x-set-policy", policy="proobe")

    assert answer["desc"] == "there is no policy 'proobe'; did you mean probe?"


# --- arguments ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "arguments", "desc"),
    [
        ("balloon", {}, "'value' is missing: it is a whole number"),
        ("balloon", {"value": 1, "x": 1}, "'x' is no argument of this command"),
        ("balloon", {"value": 1, "id": 1}, "'id' must be a text"),
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

    say(monitor_of(a.device, b.device), "balloon", value=1, id=name)

    assert (a.target(), b.target()) == (0, RAM_PAGES)


def test_of_several_guests_one_must_be_named():
    answer = say(monitor_of(rig().device, rig().device), "query-balloon")

    assert answer == {
        "class": "GenericError",
        "desc": "a guest must be named ('id'); the daemon serves a, b",
    }


def test_a_guest_that_does_not_exist_is_an_error():
    answer = say(monitor_of(rig().device), "query-balloon-status", id="/machine/a")

    assert answer == {
        "class": "DeviceNotFound",
        "desc": "there is no guest '/machine/a'; the daemon serves a",
    }


def test_many_guests_are_not_all_named():
    monitor = monitor_of(*(rig().device for _ in range(9)))

    answer = say(monitor, "query-balloon", id="z")

    assert answer["desc"] == "there is no guest 'z'; query-balloon-guests lists them"
