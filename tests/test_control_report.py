"""What is known of guests, in words."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from control_kit import monitor_of, say
from fakes import RAM_PAGES, SHUT, ScriptedPolicy, follow, rig

from balloon_plugin.control import report
from balloon_plugin.events import (
    Defect,
    Evidence,
    Judgement,
    ShadowDiverged,
    ShadowGuesses,
    Verdict,
)
from balloon_plugin.shadow import ShadowStatus
from balloon_plugin.status import Sample, Status


@pytest.fixture
def answered():
    """Return what the control socket answers if a query shows these differences."""
    made = rig(ScriptedPolicy(follow))

    class Changed:
        def __init__(self, **changes):
            self._changes = {"ram": RAM_PAGES, "driver": True} | changes

        def query(self) -> Status:
            return replace(made.device.query(), **self._changes)

    def answered(**changes):
        return say(monitor_of(Changed(**changes)), "query-balloon-status")

    return answered


MINUTE_OLD = Sample(((4, 100 << 20), (3, 1234), (99, 7)), 0.0, 61.5)
BUGGY = Verdict(
    Judgement.BUGGY,
    "HELD",
    (Defect.PFN_WIDTH,),
    (Evidence("actual = 256", "It took more."),),
)


# --- sizes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (512, "512 B"),
        (4096, "4 KiB"),
        (1023 << 20, "1023 MiB"),
        (1536 << 20, "1.5 GiB"),
        (12345678, "11.77 MiB"),
        (16 << 40, "16 TiB"),
        (2**64 - 1, "16 EiB"),
    ],
)
def test_sizes_are_said_as_people_say_them(size, text):
    assert report.amount(size) == text


# --- one guest ----------------------------------------------------------------------


def test_a_query_is_told_in_sentences(answered):
    status = answered(
        requested=512,
        advertised=512,
        actual=256,
        reclaimed=250,
        accepted=True,
        features=0x22,
    )

    assert report.status_lines(status) == [
        ("memory", "16 MiB, of which the guest has 15 MiB"),
        ("target", "2 MiB in the balloon"),
        ("balloon", "1 MiB by the driver's word, 1000 KiB given back to the host"),
        ("policy", "ScriptedPolicy"),
        ("verdict", "good (SCRIPTED)"),
        ("driver", "is there; accepted features 0x22"),
        ("faults", "none"),
        ("statistics", "not asked for; none have come"),
    ]


OF_WHICH = ", of which the guest has "
WORD = " by the driver's word, 0 given back to the host"
WAITS = "2 MiB in the balloon; the driver is shown 64 KiB; targets are deferred: wait"


@pytest.mark.parametrize(
    ("changes", "title", "text"),
    [
        ({"ram": 0}, "memory", "not known before a front end connects"),
        ({"accepted": False, "actual": 16}, "memory", f"16 MiB{OF_WHICH}16 MiB"),
        ({"accepted": True, "actual": 16}, "memory", f"16 MiB{OF_WHICH}15.94 MiB"),
        ({"requested": 512, "advertised": 16, "gate": SHUT}, "target", WAITS),
        (
            {"actual_clamped": True},
            "balloon",
            f"0{WORD}; it said more than it has",
        ),
        ({"inhibited": "passthrough"}, "inhibited", "passthrough"),
        ({"verdict": BUGGY}, "verdict", "buggy (HELD); PFN_WIDTH"),
        ({"driver": False}, "driver", "none has shown itself"),
        ({"features": None}, "driver", "is there; has accepted no features yet"),
        ({"faults": 3, "last_fault": "it lied"}, "faults", "3; the last: it lied"),
        (
            {"stats": MINUTE_OLD, "stats_interval": 5},
            "statistics",
            "asked for every 5 s; the newest are 62 s old",
        ),
    ],
)
def test_what_is_special_is_told(answered, changes, title, text):
    assert dict(report.status_lines(answered(**changes)))[title] == text


SHADOW = {
    "policy": "probe",
    "verdict": "good",
    "state": "GOOD",
    "dropped": None,
    "diverges_from": None,
    "guesses_from": None,
}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "probe: good (GOOD)"),
        ({"dropped": "it raised"}, "probe: looks on no more, it raised"),
        (
            {"diverges_from": 4, "guesses_from": 5, "guesses_why": "No."},
            "probe: good (GOOD), acts otherwise from event 4 on, a guess since 5: No.",
        ),
    ],
)
def test_policies_that_look_on_are_told(answered, changes, text):
    status = answered() | {"shadows": [SHADOW | changes]}

    assert report.status_lines(status)[-1] == ("shadow", text)


def test_a_policy_by_lot_is_told(answered):
    status = answered() | {"split": {"shares": "probe=1,none=1", "salt": "x"}}

    assert report.status_lines(status)[-1] == ("chosen", "by probe=1,none=1, salt 'x'")


def test_statistics_are_told_in_their_units(answered):
    assert report.statistics_lines(answered(stats=MINUTE_OLD))[1:] == [
        ("free memory", "100 MiB"),
        ("minor faults", "1234"),
        ("tag 99", "7"),
    ]


def test_statistics_that_never_came_are_not_told(answered):
    assert report.statistics_lines(answered()) == [
        ("statistics", "not asked for; none have come")
    ]


def test_a_verdict_is_told_with_its_evidence(answered):
    assert report.verdict_lines(answered(verdict=BUGGY)) == [
        ("policy", "ScriptedPolicy"),
        ("verdict", "buggy (HELD); PFN_WIDTH"),
        ("actual = 256", "It took more."),
    ]


@pytest.mark.parametrize(
    ("view", "keys"),
    [
        ("query", {"id", "policy", "stats", "verdict", "gate"}),
        ("stats", {"id", "interval", "age", "values"}),
        ("verdict", {"id", "judgement", "state", "defects", "evidence"}),
    ],
)
def test_for_machines_there_is_the_same_part(answered, view, keys):
    for status in (answered(), answered(stats=MINUTE_OLD)):
        part = report.part(status, view)

        assert keys <= part.keys()
        assert json.dumps(part)


# --- many guests --------------------------------------------------------------------


def test_the_most_important_of_a_guest_fits_on_a_line(answered):
    status = answered(
        requested=512, actual=256, reclaimed=250, stats=MINUTE_OLD, verdict=BUGGY
    )

    cells = dict(zip(report.HEADS, report.cells(status), strict=True))
    assert cells == {
        "guest": "a",
        "memory": "16M",
        "target": "2M",
        "actual": "1M",
        "given back": "0.977M",
        "free": "100M",
        "age": "1m",
        "verdict": "buggy (HELD); PFN_WIDTH",
    }
    assert report.style(status) == "red"


@pytest.mark.parametrize("power", range(10, 64))
@pytest.mark.parametrize("part", [1, 0.9992, 0.9760, 0.9766])
def test_whatever_a_driver_sends_fits_into_a_column(answered, power, part):
    free = int(2**power * part)

    stats = replace(MINUTE_OLD, values=((4, free),))
    shown = report.cells(answered(stats=stats))[report.HEADS.index("free")]

    number, unit = re.fullmatch(r"([\d.]+)([KMGTPE]?)", shown).groups()
    assert len(number) <= len("0.977")
    size = float(number) * 1024 ** " KMGTPE".index(unit or " ")
    assert size == pytest.approx(free, rel=0.006)


def test_a_guest_without_a_driver_has_no_verdict(answered):
    assert report.cells(answered(driver=False, ram=0, stats=None)) == (
        *("a", "0", "0", "0", "0", "-", "-"),
        "no driver",
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.4, "59s"), (60, "1m"), (7300, "2h")]
)
def test_an_age_is_short(answered, seconds, text):
    cells = report.cells(answered(stats=replace(MINUTE_OLD, age=seconds)))

    assert cells[report.HEADS.index("age")] == text


# --- what goes with a device --------------------------------------------------------

SURE = ShadowStatus("none", 9, Verdict(Judgement.GOOD, "BELIEVED"), SHUT)
DIVERGED = replace(SURE, diverged=ShadowDiverged("none", 3, SHUT, SHUT))
GUESSING = replace(DIVERGED, guesses=ShadowGuesses("none", 4, "nobody saw it"))
DROPPED = replace(GUESSING, dropped="it fell behind")
DIVERGES = "none: good (BELIEVED), acts otherwise from event 3 on"


@pytest.mark.parametrize(
    ("shadow", "text"),
    [
        (SURE, "none: good (BELIEVED)"),
        (DIVERGED, DIVERGES),
        (GUESSING, f"{DIVERGES}, a guess since 4: nobody saw it"),
        (DROPPED, "none: looks on no more, it fell behind"),
    ],
)
def test_a_shadow_is_said_with_what_its_word_is_worth(answered, shadow, text):
    status = answered() | {"shadows": [shadow.as_dict()]}

    assert report.status_lines(status)[-1] == ("shadow", text)


def test_a_lot_is_said():
    device = rig(ScriptedPolicy(follow)).device
    split = {"split": {"shares": "a=1,b=2", "salt": "S"}}

    status = say(monitor_of(device, about=lambda _: split), "query-balloon-status")

    assert report.status_lines(status)[-1] == ("chosen", "by a=1,b=2, salt 'S'")
