from __future__ import annotations

import typing
from dataclasses import replace

import pytest

from balloon_plugin import narrate
from balloon_plugin.events import (
    ActualWritten,
    Answer,
    ByteOrder,
    Defect,
    DeviceReset,
    DriverReady,
    Event,
    Evidence,
    FeaturesAcked,
    Gate,
    GateChanged,
    GuestDescribed,
    GuestFacts,
    GuestFault,
    InhibitionChanged,
    Judgement,
    MemoryRange,
    PagesDeflated,
    PagesHinted,
    PagesInflated,
    PagesReclaimed,
    PagesReported,
    PluginFailed,
    PolicyChanged,
    QueueSeen,
    ShadowDiverged,
    ShadowGuesses,
    StateLoaded,
    StatsReceived,
    TargetAnswered,
    TargetRead,
    TargetReply,
    TargetRequested,
    TimePassed,
    Translation,
    Verdict,
    VerdictChanged,
)

BUGGY = Verdict(
    Judgement.BUGGY,
    "HELD",
    (Defect.PFN_WIDTH, Defect.NO_DEFLATE),
    (Evidence("actual = 16", "Old."), Evidence("actual = 256", "Look.")),
)

SHOWN = Gate(16, reclaim=False, targets=Answer.DEFERRED)

SENTENCES = [
    (
        GuestDescribed(
            GuestFacts((MemoryRange(0, 8192),), ByteOrder.BIG, page_size=65536)
        ),
        "guest of 2 pages, big-endian, page size 65536 bytes",
    ),
    (
        GuestDescribed(GuestFacts(())),
        "guest of 0 pages, unknown-endian, page size unknown",
    ),
    (FeaturesAcked(0x1000_0000), "driver accepts features 0x10000000"),
    (DriverReady(), "driver is ready"),
    (QueueSeen(1, 0x3C4000), "driver has queue 1 at 0x3c4000"),
    (TargetRead(16), "driver reads target 16"),
    (ActualWritten(256), "driver writes actual 256"),
    (PagesInflated((1, 2, 3, 4)), "driver inflates 4 entries: 0x1 0x2 0x3 0x4"),
    (
        PagesDeflated(tuple(range(16))),
        "driver deflates 16 entries: 0x0 0x1 0x2 0x3 ...",
    ),
    (StatsReceived(((4, 1), (5, 2))), "driver sends 2 statistics"),
    (DeviceReset(), "device is reset: a new driver session begins"),
    (TargetRequested(2048), "user asks for 2048 pages"),
    (TimePassed(1.5), "time is 1.500 s"),
    (GuestFault("no such queue"), "driver at fault: no such queue"),
    (GuestFault("a loop", 0), "driver at fault in queue 0: a loop"),
    (
        GateChanged(SHOWN),
        "gate: shows 16, does not reclaim, targets deferred",
    ),
    (
        GateChanged(Gate(9, reclaim=True, targets=Answer.ACCEPTED)),
        "gate: shows 9, reclaims, targets accepted",
    ),
    (VerdictChanged(Verdict(Judgement.GOOD, "GOOD")), "verdict good (GOOD)"),
    (
        VerdictChanged(BUGGY),
        "verdict buggy (HELD), driver sends 8-byte page numbers, never deflates: Look.",
    ),
    (PagesReclaimed(20, ((0, 16), (32, 4))), "20 pages reclaimed in 2 runs"),
    (
        PagesReported(1024, ((0, 1024), (2048, 1024))),
        "driver reports 2048 free pages, 1024 given back",
    ),
    (PagesHinted(2, ((0, 1024),)), "driver hints at 1024 free pages for command 2"),
    (InhibitionChanged("a device"), "discards are inhibited: a device"),
    (InhibitionChanged(None), "discards are allowed again"),
    (
        TargetAnswered(TargetReply(Answer.ACCEPTED, "", 8)),
        "target of 8 pages is accepted",
    ),
    (
        TargetAnswered(TargetReply(Answer.REFUSED, "it is buggy", 0)),
        "target of 0 pages is refused (it is buggy)",
    ),
    (
        TargetAnswered(TargetReply(Answer.REFUSED, "it is buggy", 0), 70),
        "target of 70 pages is refused (it is buggy)",
    ),
    (PolicyChanged("probe", held=False), "policy probe judges from now on"),
    (
        PolicyChanged("probe", held=True),
        "policy probe judges from now on, over a balloon that is held",
    ),
    (StateLoaded(verdict_known=True), "state loaded, verdict known"),
    (StateLoaded(verdict_known=False), "state loaded, verdict not known"),
    (
        PluginFailed("patience", "policy_gate", "KeyError: 1"),
        "patience failed in policy_gate: KeyError: 1",
    ),
    (
        ShadowDiverged(
            "probe", 4, SHOWN, Gate(0, reclaim=False, targets=Answer.REFUSED)
        ),
        "shadow probe, from event 4 on: would show 16, would have targets deferred",
    ),
    (
        ShadowGuesses("probe", 5, "It read 33."),
        "shadow probe only guesses from event 5 on: It read 33.",
    ),
]


@pytest.mark.parametrize(
    ("event", "sentence"),
    SENTENCES,
    ids=[type(event).__name__ for event, _ in SENTENCES],
)
def test_an_event_is_a_sentence(event, sentence):
    assert narrate.sentence(event) == sentence


def test_no_event_is_forgotten():
    told = {type(event) for event, _ in SENTENCES}

    assert told == set(typing.get_args(Event))


def test_a_strangers_error_of_several_lines_is_one():
    event = PluginFailed("p", "policy_gate", "ExceptionGroup: two\n  first\n  second")

    assert narrate.sentence(event) == (
        "p failed in policy_gate: ExceptionGroup: two first second"
    )


def test_an_operator_is_told_of_verdicts_targets_and_failures_alone():
    news = {type(event) for event, _ in SENTENCES if narrate.is_news(event)}

    assert news == {
        DeviceReset,
        GuestFault,
        InhibitionChanged,
        PluginFailed,
        PolicyChanged,
        ShadowDiverged,
        ShadowGuesses,
        StateLoaded,
        TargetAnswered,
        VerdictChanged,
    }


def test_a_difference_of_pages_read_otherwise_is_told():
    translated = replace(SHOWN, translation=Translation(swap_pfns=True))

    assert narrate.difference(translated, SHOWN) == (
        "would reclaim nothing, translated"
    )


def test_no_difference_is_told_as_well():
    assert narrate.difference(SHOWN, SHOWN) == "would do the same"
