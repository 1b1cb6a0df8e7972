"""The format of traces: all that can happen goes in and comes out the same."""

from __future__ import annotations

import contextlib
import json
import typing
from dataclasses import asdict
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin import events
from balloon_plugin.errors import HostError
from balloon_plugin.events import PagesInflated, StateLoaded, TargetRead
from balloon_plugin.trace import Concluded, Header, Moment, decode, encode
from balloon_plugin.trace.forms import MAX_NUMBERS

U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
TEXT = st.text(max_size=20)
SECONDS = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.lists(U32, max_size=20).map(tuple)
RUNS = st.lists(st.tuples(U32, U64), max_size=3).map(tuple)
JSON = st.dictionaries(TEXT, st.none() | st.booleans() | U64 | st.lists(U32) | TEXT)

TRANSLATIONS = st.builds(
    events.Translation, st.booleans(), U32, U32, st.booleans(), U32
)
GATES = st.builds(
    events.Gate,
    U32,
    st.booleans(),
    st.sampled_from(events.Answer),
    TEXT,
    TRANSLATIONS,
    U64,
)
EVIDENCE = st.builds(events.Evidence, TEXT, TEXT)
VERDICTS = st.builds(
    events.Verdict,
    st.sampled_from(events.Judgement),
    TEXT,
    st.lists(st.sampled_from(events.Defect), max_size=3).map(tuple),
    st.lists(EVIDENCE, max_size=3).map(tuple),
)
FACTS = st.builds(
    events.GuestFacts,
    st.lists(st.builds(events.MemoryRange, U64, U64), max_size=3).map(tuple),
    st.none() | st.sampled_from(events.ByteOrder),
    st.none() | U64,
    U64,
)
COUNTS = st.integers(1, 1 << 18)
STATES = st.fixed_dictionaries(
    {
        "requested": U32,
        "accepted": st.booleans(),
        "policy": TEXT,
        "policy_state": st.none() | JSON,
        "advertised": st.none() | U32,
        "read": st.none() | U32,
        "translation": st.builds(
            events.Translation, st.booleans(), COUNTS, COUNTS, st.booleans(), COUNTS
        ).map(asdict),
    }
)
REPLIES = st.builds(events.TargetReply, st.sampled_from(events.Answer), TEXT, U32)

ENTRIES = {
    events.GuestDescribed: (FACTS,),
    events.FeaturesAcked: (U64,),
    events.DriverReady: (),
    events.QueueSeen: (U32, U64),
    events.TargetRead: (U32,),
    events.ActualWritten: (U32,),
    events.PagesInflated: (NUMBERS,),
    events.PagesDeflated: (NUMBERS,),
    events.StatsReceived: (st.lists(st.tuples(U32, U64), max_size=3).map(tuple),),
    events.DeviceReset: (),
    events.TargetRequested: (U32,),
    events.TimePassed: (SECONDS,),
    events.GuestFault: (TEXT, st.none() | U32),
    events.GateChanged: (GATES,),
    events.VerdictChanged: (VERDICTS,),
    events.PagesReclaimed: (U64, RUNS),
    events.PagesReported: (U64, RUNS),
    events.PagesHinted: (U32, RUNS),
    events.InhibitionChanged: (st.none() | TEXT,),
    events.TargetAnswered: (REPLIES, st.none() | U32),
    events.StateLoaded: (st.booleans(), U64, STATES),
    events.PolicyChanged: (TEXT, st.booleans(), U32),
    events.PluginFailed: (TEXT, TEXT, TEXT),
    events.ShadowDiverged: (TEXT, U64, GATES, GATES),
    events.ShadowGuesses: (TEXT, U64, TEXT),
    Concluded: (VERDICTS,),
}

HEADER = Header(package="0.1.0", policy="probe")
HEADERS = st.builds(Header, **dict.fromkeys(("package", "policy", "guest"), TEXT))


def moments(kind):
    return st.builds(Moment, U64, st.builds(kind, *ENTRIES[kind]))


def line(*values):
    return json.dumps(values).encode() + b"\n"


def read(*lines):
    """Return the moments of a trace whose header is in order."""
    return list(decode([encode(HEADER), *lines])[1])


def refusal(*lines):
    with pytest.raises(HostError) as refused:
        read(*lines)
    return str(refused.value)


# --- there and back -----------------------------------------------------------------


def test_no_event_is_forgotten():
    assert set(ENTRIES) == {*typing.get_args(events.Event), Concluded}


@pytest.mark.parametrize("kind", ENTRIES)
@given(data=st.data())
def test_whatever_is_written_is_read_the_same(kind, data):
    moment = data.draw(moments(kind))

    assert read(encode(moment)) == [moment]


@given(HEADERS)
def test_so_is_the_header(header):
    found, rest = decode([encode(header)])

    assert (found, list(rest)) == (header, [])


def stretches():
    """Numbers in stretches like those of real drivers, with one step each."""
    stretch = st.builds(
        lambda first, step, count: [first + step * i for i in range(count)],
        st.integers(1 << 20, 1 << 24),
        st.sampled_from([1, -1, 0, 16, -16, 1 << 20]),
        st.integers(1, 40),
    )
    return st.lists(stretch, max_size=8).map(lambda parts: tuple(chain(*parts)))


@given(stretches())
def test_page_numbers_keep_their_order_and_their_duplicates(pfns):
    (moment,) = read(encode(Moment(0, PagesInflated(pfns))))

    assert moment.entry.pfns == pfns


@pytest.mark.parametrize(
    ("pfns", "written"),
    [
        ((), []),
        ((7,), [7]),
        ((7, 8), [7, 8]),
        (range(4096, 4352), [4096, [1, 255]]),
        (range(300, 44, -1), [300, [-1, 255]]),
        ((41, 41, 41, 42, 42, 42), [41, [0, 2], 42, [0, 2]]),
        ((9, 2, 5, 1), [9, 2, 5, 1]),
        ((5, 6, 7, 9, 3, 3), [5, [1, 2], 9, 3, 3]),
    ],
)
def test_page_numbers_are_compact(pfns, written):
    text = encode(Moment(0, PagesInflated(tuple(pfns))))

    assert json.loads(text) == [0, "inflated", written]


def test_a_large_page_takes_a_few_characters():
    pages = tuple(page + piece for page in (800, 784, 768) for piece in range(16))

    text = encode(Moment(5, PagesInflated(pages)))

    assert text == b'[5,"inflated",[800,[1,15],784,[1,15],768,[1,15]]]\n'


def test_a_state_of_before_it_had_all_that_it_has_is_read():
    state = {"requested": 3, "accepted": True, "policy": "none", "policy_state": None}

    (moment,) = read(line(3, "loaded", True, 5, state))

    assert moment.entry.state == state | {
        "advertised": None,
        "read": None,
        "translation": asdict(events.Translation()),
    }


def test_a_line_that_ends_early_is_of_a_time_before_its_last_fields():
    assert read(line(3, "loaded", True)) == [Moment(3, StateLoaded(verdict_known=True))]


# --- what a crash leaves ------------------------------------------------------------


def test_a_last_line_without_its_end_does_not_count():
    assert read(b'[1,"read",16]\n', b'[2,"read",1') == [Moment(1, TargetRead(16))]


@given(st.integers(0, 60))
def test_wherever_a_trace_is_cut_off_the_whole_lines_are_left(cut):
    whole = [encode(Moment(at, TargetRead(at))) for at in range(5)]
    left = b"".join(whole)[:cut].splitlines(keepends=True)

    assert [moment.at for moment in read(*left)] == list(range(cut // len(whole[0])))


# --- what is refused ----------------------------------------------------------------


@pytest.mark.parametrize(
    "first", [b"", b"\n", b"[1]\n", b"{}\n", b"elf\n", b'{"balloon_trace":"1"}\n']
)
def test_what_is_no_trace_is_refused(first):
    with pytest.raises(HostError, match=r"no trace of a balloon.*--record"):
        decode([first])


def test_a_newer_version_is_refused_with_who_can_read_it():
    newer = b'{"balloon_trace":2,"package":"3.1.0"}\n'

    with pytest.raises(HostError, match=r"version 2, .* balloon_plugin 3\.1\.0 or"):
        decode([newer])


def test_a_header_that_lacks_something_is_damaged():
    with pytest.raises(HostError, match="header of the trace is damaged: 'package'"):
        decode([b'{"balloon_trace":1}\n'])


def test_damage_is_refused_with_its_place_and_what_is_left():
    sentence = refusal(b'[1,"read",16]\n', b"[2,re\n", b'[3,"read",16]\n')

    assert sentence.startswith("line 3 of the trace is damaged (no [time, event, ...])")
    assert "head -n 2" in sentence


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (["now", "read", 16], "no [time, event, ...]"),
        ([-1, "read", 16], "no [time, event, ...]"),
        ([True, "read", 16], "no [time, event, ...]"),
        ([1, "danced"], "'danced' is no event that this version knows"),
        ([1, "read"], "0 values are too few"),
        ([1, "read", 16, 17], "2 values where 1 belong"),
        ([1, "read", 1 << 32], "4294967296 where a number from 0 to 4294967295"),
        ([1, "read", True], "True where a number"),
        ([1, "read", 1.0], "1.0 where a number"),
        ([1, "time", "soon"], "'soon' where seconds"),
        ([1, "time", float("nan")], "nan where seconds"),
        ([1, "time", 10**400], "0 where seconds"),
        ([10**400, "read", 16], "no [time, event, ...]"),
        ([1, "fault", 7], "7 where a text"),
        ([1, "loaded", 1], "1 where true or false"),
        ([1, "loaded", True, 0, []], "a state without what a policy and its user had"),
        ([1, "loaded", True, 0, {"policy": "none"}], "a state without what a policy"),
        ([1, "reclaimed", 1, [[1]]], "[1] where a pair"),
        ([1, "reclaimed", 1, 5], "5 where a list"),
        ([1, "answered", ["MAYBE", "", 0]], "'MAYBE' where one of ACCEPTED, DEFERRED"),
        ([1, "inflated", ["x"]], "'x' where a page number"),
        ([1, "inflated", [[1, 5]]], "[1, 5] where a page number"),
        ([1, "inflated", [1, [1, 0]]], "[1, 0] where a page number"),
        ([1, "inflated", [1, [1, MAX_NUMBERS]]], "where a page number"),
        ([1, "inflated", [1, [-1, 2]]], "does not fit into 32 bits"),
        ([1, "inflated", [1] * (MAX_NUMBERS + 1)], f"more than {MAX_NUMBERS} page"),
    ],
)
def test_a_line_that_makes_no_sense_says_so(values, why):
    assert why in refusal(line(*values))


@given(st.binary(max_size=80))
def test_no_bytes_raise_anything_else(garbage):
    with contextlib.suppress(HostError):
        read(garbage + b"\n")


def test_depth_is_no_way_out():
    assert "damaged" in refusal(b"[" * 100_000 + b"\n")
