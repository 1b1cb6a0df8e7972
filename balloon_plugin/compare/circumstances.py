"""The names of circumstances: tables, and how names compose.

A circumstance is written as names joined by ``+``: ``low-memory-10+scattered``. Each
name changes one thing. To add one add a row to a table here.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

from balloon_plugin.compare.circumstance import (
    TARGET,
    Act,
    Circumstance,
    Moment,
    Site,
    Stop,
    Turn,
)
from balloon_plugin.errors import HostError
from balloon_plugin.guests.access import Access
from balloon_plugin.guests.profiles import find as find_guest
from balloon_plugin.guests.traits import Allocation, Conditions
from balloon_plugin.layouts import Feature

__all__ = ["find", "listing"]

_STATS: Final = Feature.VIRTIO_BALLOON_F_STATS_VQ.mask
_OOM: Final = Feature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM.mask
_ALL: Final = sum(
    feature.mask
    for feature in (
        Feature.VIRTIO_BALLOON_F_MUST_TELL_HOST,
        Feature.VIRTIO_BALLOON_F_STATS_VQ,
        Feature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM,
        Feature.VIRTIO_BALLOON_F_FREE_PAGE_HINT,
        Feature.VIRTIO_BALLOON_F_PAGE_POISON,
        Feature.VIRTIO_BALLOON_F_REPORTING,
    )
)

_UNALIGNED: Final = TARGET - 3
"""A target that is a multiple of no page size but 4 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What one name changes.

    :ivar summary: what is different, for people.
    """

    summary: str
    conditions: Mapping[str, Any] = field(default_factory=dict)
    site: Mapping[str, Any] = field(default_factory=dict)
    rest: Mapping[str, Any] = field(default_factory=dict)
    turns: tuple[Turn, ...] = ()


def _conditions(summary: str, **changes: Any) -> _Part:
    return _Part(summary=summary, conditions=changes)


def _site(summary: str, **changes: Any) -> _Part:
    return _Part(summary=summary, site=changes)


_FIXED: Final[dict[str, _Part]] = {
    "usual": _Part(summary="nothing special"),
    # --- memory
    "contiguous": _conditions(
        "free pages lie side by side, right above the kernel",
        allocation=Allocation.CONTIGUOUS,
    ),
    "aligned-queues": _conditions(
        "queues happen to begin at multiples of 64 KiB, in guests with 4 KiB pages too",
        queue_align=64 << 10,
    ),
    # --- the bus
    "byte-config": _conditions(
        "configuration is accessed byte by byte", access=Access.BYTEWISE
    ),
    "word-config": _conditions(
        "configuration is accessed a field at a time", access=Access.WORD
    ),
    "whole-config": _conditions(
        "a write of one field arrives as one of the whole space (QEMU's vhost-user)",
        access=Access.WHOLE,
    ),
    "s390-bytes-0-to-7": _conditions(
        "a write of actual brings num_pages along as it was last read (channel I/O)",
        access=Access.CHANNEL,
    ),
    "legacy-bus": _site("the bus has no VERSION_1", legacy=True),
    "held-kicks": _site(
        "kicks before DRIVER_OK wait for it (vhost-user)", holds_early_kicks=True
    ),
    # --- the host
    "host-64k": _site("the host's pages are of 64 KiB", host_page_size=64 << 10),
    "host-knows-page-size": _site(
        "the host knows the size of the guest's pages", tells_page_size=True
    ),
    "host-knows-nothing": _site(
        "the host does not know the guest's byte order", tells_byte_order=False
    ),
    "ram-at-1g": _site("RAM begins at 1 GiB", ram_start=1 << 30),
    "ram-1g": _site("1 GiB of RAM", ram_size=1 << 30),
    # --- features
    "all-features": _site("the device offers all features", features=_ALL),
    "page-poison": _Part(
        summary="free pages are poisoned, and all features are offered",
        conditions={"page_poison": True},
        site={"features": _ALL},
    ),
    # --- what happens
    "unaligned-target": _Part(
        summary=f"the user asks for {_UNALIGNED} pages, not whole large ones",
        rest={"target": _UNALIGNED},
    ),
    "stats-polling": _Part(
        summary="the host asks for statistics at every moment and every second",
        site={"features": _STATS, "polls_stats": True},
        turns=tuple(Turn(Act.STATS, stop) for stop in Stop),
    ),
    "oom-deflate": _Part(
        summary="the guest deflates by itself, while it is tested and on its way",
        site={"features": _OOM},
        turns=tuple(
            Turn(Act.OOM, stop) for stop in (Stop.INFLATING, Stop.GROWING, Stop.FULL)
        ),
    ),
}

_Maker = Callable[[re.Match[str]], _Part]


def _low_memory(found: re.Match[str]) -> _Part:
    return _conditions(
        "the first inflation can get only N guest pages", first_batch=int(found["n"])
    )


def _short(found: re.Match[str]) -> _Part:
    return _Part(
        summary="the balloon can never get more than N guest pages",
        conditions={"most": int(found["n"])},
        rest={"hopeless": "there is no memory to be had"},
    )


def _scattered(found: re.Match[str]) -> _Part:
    return _conditions(
        "free pages come from all over RAM; N for other places",
        allocation=Allocation.SCATTERED,
        seed=int(found["n"] or 0),
    )


_ACTS: Final = {
    "module-reload": Act.MODULE_RELOAD,
    "save-restore": Act.SAVE_RESTORE,
    "retarget": Act.RETARGET,
    "stats": Act.STATS,
    "oom": Act.OOM,
    "compaction": Act.COMPACTION,
    "hibernation": Act.HIBERNATION,
    "interrupt": Act.INTERRUPT,
}
_BOOTS: Final = {"reboot": Act.REBOOT, "kexec": Act.KEXEC}
_FEATURES: Final = {Act.STATS: _STATS, Act.OOM: _OOM}
_STOPS: Final = {stop.text: stop for stop in Stop}


def _acting(found: re.Match[str]) -> _Part:
    act = _ACTS[found["act"]]
    turn = Turn(act, _moment(found["moment"]))
    site = {"features": _FEATURES[act]} if act in _FEATURES else {}
    return _Part(summary=act.value, site=site, turns=(turn,))


def _booting(found: re.Match[str]) -> _Part:
    act = _BOOTS[found["act"]]
    moment = _moment(found["moment"] or Stop.FULL.text)
    turn = Turn(act, moment, find_guest(found["guest"]).name)
    return _Part(summary=act.value, turns=(turn,))


def _moment(text: str) -> Moment:
    return _STOPS[text] if text in _STOPS else int(text.removeprefix("step-"))


_WHEN: Final = rf"(?P<moment>{'|'.join(_STOPS)}|step-\d+)"

_PATTERNS: Final[tuple[tuple[str, str, _Maker], ...]] = (
    ("low-memory-N", r"low-memory-(?P<n>\d+)", _low_memory),
    ("never-more-than-N", r"never-more-than-(?P<n>\d+)", _short),
    ("scattered[-N]", r"scattered(-(?P<n>\d+))?", _scattered),
    *((f"{act}-in-MOMENT", rf"(?P<act>{act})-in-{_WHEN}", _acting) for act in _ACTS),
    *(
        (
            f"{act}-into:GUEST[-in-MOMENT]",
            rf"(?P<act>{act})-into:(?P<guest>[^+]+?)(-in-{_WHEN})?",
            _booting,
        )
        for act in _BOOTS
    ),
)


def find(text: str) -> Circumstance:
    """Return the circumstance of this name, or of several joined by ``+``.

    :raises HostError: with what is near, if there is none, or if two contradict.
    """
    parts = [_part(name) for name in text.split("+")]
    features = 0
    for part in parts:
        features |= part.site.get("features", 0)
    site = _merged(text, (dict(part.site, features=features) for part in parts))
    return Circumstance(
        name=text,
        conditions=Conditions(**_merged(text, (part.conditions for part in parts))),
        site=Site(**site),
        turns=tuple(itertools.chain.from_iterable(part.turns for part in parts)),
        **_merged(text, (part.rest for part in parts)),
    )


def _merged(text: str, changes: Iterator[Mapping[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for some in changes:
        for key, value in some.items():
            if whole.setdefault(key, value) != value:
                raise HostError(
                    f"the circumstance {text!r} contradicts itself about {key}: "
                    "leave one of its names out"
                )
    return whole


def _part(name: str) -> _Part:
    if name in _FIXED:
        return _FIXED[name]
    for _, pattern, make in _PATTERNS:
        found = re.fullmatch(pattern, name)
        if found:
            return make(found)
    near = get_close_matches(name, _examples(), 3, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "--circumstances lists all"
    raise HostError(f"there is no circumstance {name!r}; {hint}")


def _examples() -> list[str]:
    """Return every fixed name, and one of each pattern with each moment."""
    acts = [f"{act}-in-{stop}" for act in _ACTS for stop in _STOPS]
    numbers = [f"low-memory-{n}" for n in (0, 1, 10, 16, 17, 200)]
    boots = [f"{act}-into:linux-3.3-be-64k" for act in _BOOTS]
    return [*_FIXED, *acts, *numbers, "scattered", "never-more-than-1", *boots]


def listing() -> Iterator[tuple[str, str]]:
    """Yield the form of each name, and what it changes."""
    for name, part in _FIXED.items():
        yield name, part.summary
    for form, pattern, make in _PATTERNS:
        example = next(name for name in _examples() if re.fullmatch(pattern, name))
        found = re.fullmatch(pattern, example)
        if found:
            yield form, make(found).summary
    for stop in Stop:
        yield f"MOMENT {stop.text}", stop.value
    yield "MOMENT step-N", "after N steps of the guest"
