"""The lines of a trace: what a header and each event look like.

Pure: text in, values out, and back. A trace is JSON lines. The first is an object, the
header; every other is an array: microseconds since the first event, the name of an
event, and its fields in the order of :mod:`balloon_plugin.events`. The format is on the
page of the documentation about traces, with an example.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, TypeAlias

from balloon_plugin import events
from balloon_plugin.errors import HostError
from balloon_plugin.events import Event, Verdict
from balloon_plugin.snapshot import policy_part
from balloon_plugin.trace.forms import (
    FLAG,
    NUMBERS,
    SECONDS,
    TEXT,
    U32,
    U64,
    Form,
    many,
    member,
    optional,
    pair,
    record,
)

__all__ = [
    "VERSION",
    "Concluded",
    "Entry",
    "Header",
    "Moment",
    "decode",
    "decode_moment",
    "encode",
]

VERSION: Final = 1
"""Written into every trace; grows when older readers would misread a newer trace."""

_MARK: Final = "balloon_trace"
"""The first key of a trace, by which it is known; its value is the version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What holds for a whole trace.

    :ivar package: version of the package that recorded it.
    :ivar policy: the policy that had the power, with its options.
    :ivar offers: feature bits that this policy offered besides the device's own.
    :ivar guest: what the operator calls the guest.
    :ivar split: the shares of the policies by which this one was chosen for the guest,
        empty if it was not.
    :ivar salt: what else went into that choice.
    :ivar started: wall-clock time of the beginning, in words.
    """

    package: str
    policy: str
    offers: int = 0
    guest: str = ""
    split: str = ""
    salt: str = ""
    started: str = ""


@dataclass(frozen=True, slots=True)
class Concluded:
    """What the policy had concluded, with all evidence, when a session was over.

    Not an event: the recorder asks for it before a reset, if there is more than was
    told, and always at its own end. A trace whose last line it is ended in order.
    """

    verdict: Verdict


Entry: TypeAlias = Event | Concluded
"""What a line after the header holds."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One line after the header.

    :ivar at: microseconds since the first event.
    :ivar entry: what happened then.
    """

    at: int
    entry: Entry


# --- what events look like ----------------------------------------------------------

_RUNS: Final = many(pair(U32, U64))
_TRANSLATION: Final = record(events.Translation, FLAG, U32, U32, FLAG, U32)
_ANSWER: Final = member(events.Answer)
_GATE: Final = record(
    events.Gate, U32, FLAG, _ANSWER, TEXT, _TRANSLATION, U64, optional(U64)
)
_EVIDENCE: Final = record(events.Evidence, TEXT, TEXT)
_VERDICT: Final = record(
    events.Verdict,
    member(events.Judgement),
    TEXT,
    many(member(events.Defect)),
    many(_EVIDENCE),
)
_FACTS: Final = record(
    events.GuestFacts,
    many(record(events.MemoryRange, U64, U64)),
    optional(member(events.ByteOrder)),
    optional(U64),
    U64,
)
_REPLY: Final = record(events.TargetReply, _ANSWER, TEXT, U32)
_STATE: Final = Form(dict, policy_part)

_EVENTS: Final[dict[str, tuple[type[Entry], tuple[Form, ...]]]] = {
    "described": (events.GuestDescribed, (_FACTS,)),
    "acked": (events.FeaturesAcked, (U64,)),
    "ready": (events.DriverReady, ()),
    "queue": (events.QueueSeen, (U32, U64)),
    "read": (events.TargetRead, (U32,)),
    "actual": (events.ActualWritten, (U32,)),
    "inflated": (events.PagesInflated, (NUMBERS,)),
    "deflated": (events.PagesDeflated, (NUMBERS,)),
    "stats": (events.StatsReceived, (many(pair(U32, U64)),)),
    "reset": (events.DeviceReset, ()),
    "requested": (events.TargetRequested, (U32,)),
    "time": (events.TimePassed, (SECONDS,)),
    "fault": (events.GuestFault, (TEXT, optional(U32))),
    "gate": (events.GateChanged, (_GATE,)),
    "verdict": (events.VerdictChanged, (_VERDICT,)),
    "reclaimed": (events.PagesReclaimed, (U64, _RUNS)),
    "reported": (events.PagesReported, (U64, _RUNS)),
    "hinted": (events.PagesHinted, (U32, _RUNS)),
    "inhibited": (events.InhibitionChanged, (optional(TEXT),)),
    "answered": (events.TargetAnswered, (_REPLY, optional(U32))),
    "loaded": (events.StateLoaded, (FLAG, U64, _STATE)),
    "policy": (events.PolicyChanged, (TEXT, FLAG, U32)),
    "failed": (events.PluginFailed, (TEXT, TEXT, TEXT)),
    "diverged": (events.ShadowDiverged, (TEXT, U64, _GATE, _GATE)),
    "guesses": (events.ShadowGuesses, (TEXT, U64, TEXT)),
    "concluded": (Concluded, (_VERDICT,)),
}

_FORMS: Final = {name: record(kind, *forms) for name, (kind, forms) in _EVENTS.items()}
_NAMES: Final = {kind: name for name, (kind, _) in _EVENTS.items()}


def encode(value: Header | Moment) -> bytes:
    """Return a value as a line, with its end."""
    if isinstance(value, Header):
        return _line({_MARK: VERSION, **asdict(value)})
    name = _NAMES[type(value.entry)]
    return _line([value.at, name, *_FORMS[name].put(value.entry)])


def _line(value: Any) -> bytes:
    return _ENCODER.encode(value).encode() + b"\n"


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))
"""Made once: :func:`json.dumps` makes one each time if it is not the usual one."""


# --- reading ------------------------------------------------------------------------


def decode(lines: Iterable[bytes]) -> tuple[Header, Iterator[Moment]]:
    """Return the header of a trace, and its moments as they are asked for.

    :param lines: with their ends. A last one without is what a crash left of a line,
        and does not count.
    :raises HostError: if this is no trace, one of a newer version, or damaged; from the
        iterator, too. The message says what to do.
    """
    whole = (line for line in lines if line.endswith(b"\n"))
    return _header(next(whole, b"")), _moments(whole)


def _header(line: bytes) -> Header:
    found = _parsed(line)
    version = found.get(_MARK) if isinstance(found, dict) else None
    if type(version) is not int or version < 1:
        raise HostError(
            "this is no trace of a balloon, or nothing is left of it: name a file that "
            "--record made"
        )
    if version > VERSION:
        raise HostError(
            f"the trace has version {version}, this is version {VERSION}: replay it "
            f"with balloon_plugin {found.get('package', 'newer')} or later"
        )
    forms = {"offers": U32}
    try:
        return Header(
            **{
                item.name: forms.get(item.name, TEXT).take(found[item.name])
                for item in fields(Header)
            }
        )
    except (KeyError, ValueError) as error:
        raise HostError(f"the header of the trace is damaged: {error}") from error


def _moments(lines: Iterable[bytes]) -> Iterator[Moment]:
    for number, line in enumerate(lines, 2):
        try:
            yield decode_moment(line)
        except ValueError as error:
            raise HostError(
                f"line {number} of the trace is damaged ({error}); what is before it "
                f"can be replayed: head -n {number - 1} of it (of what zstd -dc makes "
                "of it, if it is compressed) into a new file"
            ) from error


def decode_moment(line: bytes) -> Moment:
    """Return what is in one line after the header.

    :raises ValueError: if it makes no sense.
    """
    match _parsed(line):
        case [at, str(name), *values] if type(at) is int and 0 <= at < 1 << 64:
            if name not in _FORMS:
                raise ValueError(f"{name!r} is no event that this version knows")
            return Moment(at, _FORMS[name].take(values))
    raise ValueError("no [time, event, ...]")


def _parsed(line: bytes) -> Any:
    """Return the JSON value of a line, ``None`` if it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # the latter if it is nested too deeply
        return None
