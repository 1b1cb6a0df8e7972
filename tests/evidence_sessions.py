"""Sessions of the evidence policy as tests need them: how they begin."""

from __future__ import annotations

from evidence_model import INDIRECT

from balloon_plugin.events import ByteOrder, GuestFacts, MemoryRange
from balloon_plugin.policies.evidence.session import Session

GIB = 1 << 30
FACTS = GuestFacts((MemoryRange(0, GIB),))
RIGHT = "a driver that is right"
BIG_4K = "Linux 2.6.27 to 3.3, big-endian"
HIGH = 0x30000
"""A page above a quarter of RAM: no number of larger pages."""

STALE = "NetBSD"


def begun(*targets, features=INDIRECT, facts=FACTS):
    session = Session(facts)
    session.accept(features)
    for target in targets:
        session.read(target)
    return session


def pages(count, first=HIGH):
    return tuple(range(first, first + count))


def names(session):
    return {kind.name for kind in session.alive}


def right_pages(session):
    return {kind.page for kind in session.alive if not kind.defects}


def only_4k(target, *more, features=INDIRECT):
    """Return a session in which only right drivers on 4 KiB are left."""
    facts = GuestFacts(FACTS.ram, ByteOrder.LITTLE, 4096)
    session = begun(target, *more, features=features, facts=facts)
    session.alive = session.alive[:1]
    assert names(session) == {RIGHT}
    return session


def whole(*parts):
    """Return a buffer of 256 entries, filled up with zeros."""
    entries = sum(parts, ())
    return entries + (0,) * (256 - len(entries))


def stale():
    """Return a session with NetBSD, and the buffer that it sent."""
    session = begun(33, features=0)
    session.inflate(whole(pages(33)))
    assert names(session) == {STALE}
    return session, whole(pages(33))
