"""The kit finds each breach of the contract, and none in policies that keep it."""

from __future__ import annotations

import pytest

from balloon_plugin import manager
from balloon_plugin.events import (
    Answer,
    DeviceReset,
    Evidence,
    Gate,
    Judgement,
    PagesInflated,
    Verdict,
)
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.testing import ContractError, check_policy

BUILT_IN = ["none", "probe", "probe:pages=32", "feature-bit", "evidence"]


@pytest.mark.parametrize("policy", BUILT_IN)
def test_the_built_in_policies_keep_the_contract(policy):
    check_policy(lambda: manager.make_policy(policy))


class Sound:
    """A policy that believes once it saw pages."""

    def __init__(self):
        self.seen = []

    @hookimpl
    def policy_observe(self, event):
        if isinstance(event, PagesInflated):
            self.seen = ["pages"]
        elif isinstance(event, DeviceReset):
            self.seen = []

    @hookimpl
    def policy_gate(self):
        return Gate(len(self.seen), reclaim=bool(self.seen), targets=Answer.ACCEPTED)

    @hookimpl
    def policy_verdict(self):
        shown = tuple(Evidence("inflated", name) for name in self.seen)
        return Verdict(Judgement.UNDECIDED, "SOUND", (), shown)

    @hookimpl
    def policy_save(self):
        return {"seen": self.seen}

    @hookimpl
    def policy_load(self, state):
        self.seen = list(state["seen"])


class Raising(Sound):
    @hookimpl
    def policy_observe(self, event):
        raise KeyError(event)


class Senseless(Sound):
    @hookimpl
    def policy_gate(self):
        return Gate(-1, reclaim=True, targets=Answer.ACCEPTED)


class Talkative(Sound):
    @hookimpl
    def policy_observe(self, event):
        self.seen.append(str(event))
        if isinstance(event, DeviceReset):
            self.seen.clear()


class Wordless(Sound):
    @hookimpl
    def policy_verdict(self):
        return Verdict(Judgement.GOOD, "X", (), ("believed",))


class Unsaved(Sound):
    @hookimpl
    def policy_save(self):
        return None


class Unloaded(Sound):
    @hookimpl
    def policy_load(self, state):
        raise ValueError(state)


class Forgetful(Sound):
    @hookimpl
    def policy_load(self, state):
        pass


class Unforgetting(Sound):
    @hookimpl
    def policy_observe(self, event):
        if isinstance(event, PagesInflated):
            self.seen = ["pages"]


class Fleeting(Sound):
    policy_save = policy_load = None


@pytest.mark.parametrize("policy", [Sound, Fleeting])
def test_a_policy_that_keeps_the_contract_passes(policy):
    check_policy(policy)


@pytest.mark.parametrize(
    ("policy", "breach"),
    [
        (Raising, "KeyError"),
        (Senseless, "not a sound Gate"),
        (Talkative, "pieces of evidence"),
        (Wordless, "not a sound Verdict"),
        (Unsaved, "returned no state"),
        (Unloaded, "policy_load refused"),
        (Forgetful, "loaded, it differs"),
        (Unforgetting, "after a reset"),
    ],
)
def test_each_breach_is_found(policy, breach):
    with pytest.raises(ContractError, match=breach):
        check_policy(policy)
