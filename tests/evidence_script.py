"""Drivers as a few events in a row, shown to the policy ``evidence``."""

from __future__ import annotations

import json
from functools import partial

from evidence_model import (
    INDIRECT,
    run,
)

from balloon_plugin.events import (
    ActualWritten,
    Answer,
    FeaturesAcked,
    GuestDescribed,
    GuestFacts,
    Judgement,
    MemoryRange,
    PagesDeflated,
    PagesInflated,
    TargetRead,
)
from balloon_plugin.policies.evidence import EvidencePolicy

GIB = 1 << 30
HIGH = 0x30000
RAM = (MemoryRange(0, GIB),)
FACTS = GuestFacts(RAM)
UNDECIDED, GOOD, BUGGY = Judgement.UNDECIDED, Judgement.GOOD, Judgement.BUGGY
ACCEPTED, DEFERRED, REFUSED = Answer.ACCEPTED, Answer.DEFERRED, Answer.REFUSED


def pages(count, first=HIGH):
    return tuple(range(first, first + count))


def after(*events, features=INDIRECT, facts=FACTS, **options):
    policy = EvidencePolicy(**options)
    observe(policy, GuestDescribed(facts))
    if features is not None:
        observe(policy, FeaturesAcked(features))
    observe(policy, *events)
    return policy


def observe(policy, *events, requested=0):
    for event in events:
        policy.policy_observe(event)
        policy.policy_gate(requested)


def copied(policy, facts=FACTS, **options):
    loaded = EvidencePolicy(**options)
    observe(loaded, GuestDescribed(facts))
    loaded.policy_load(json.loads(json.dumps(policy.policy_save())))
    return loaded


def judged(case, **options):
    world, _ = run(case, partial(EvidencePolicy, **options), targets=())
    return world


def seen(policy, requested=0):
    gate, verdict = policy.policy_gate(requested), policy.policy_verdict()
    return verdict.judgement, verdict.state, gate.num_pages


def shows(policy):
    return [one.shows for one in policy.policy_verdict().evidence]


def events(policy):
    return [one.event for one in policy.policy_verdict().evidence]


FILLED = (TargetRead(33), PagesInflated(pages(33)), ActualWritten(33))
SHRUNK = (TargetRead(1), PagesDeflated(pages(32, HIGH + 1)), ActualWritten(1))
SHIFTED = tuple(0x200 + i // 16 for i in range(256))
