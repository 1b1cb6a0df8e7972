"""Anything in any order: driver, user and host without manners (rules 1, 3, 6)."""

from __future__ import annotations

import itertools
import json

from fakes import (
    OUTSIDE,
    PAGE,
    RAM_PAGES,
    FakeHost,
    ScriptedPolicy,
    rig,
)
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from balloon_plugin import change_policy
from balloon_plugin.errors import HostError
from balloon_plugin.events import (
    ActualWritten,
    Answer,
    Gate,
    Judgement,
    PagesInflated,
    TargetRead,
    Translation,
    Verdict,
)

POLICY_HOOKS = ["policy_features", "policy_observe", "policy_gate", "policy_verdict"]

U32 = st.integers(0, 2**32 - 1)
PFNS = st.lists(st.integers(0, 64) | st.integers(4090, 4100) | U32, max_size=40)
TRANSLATIONS = st.builds(
    Translation,
    swap_pfns=st.booleans(),
    slot_entries=st.integers(1, 3),
    pages_per_pfn=st.sampled_from([1, 2, 16, 2**20]),
    swap_actual=st.booleans(),
    pages_per_unit=st.sampled_from([1, 16, 2**20]),
)
EVERYTHING = {
    "deflate_on_oom": True,
    "must_tell_host": True,
    "page_poison": True,
    "reporting": True,
    "hinting": True,
}
STATSQ = 2
QUEUE = st.sampled_from(range(5))
PARTS = st.lists(
    st.tuples(st.integers(0, 2**64 - 1), U32)
    | st.tuples(st.integers(0, OUTSIDE), st.integers(0, 2_000_000)),
    max_size=4,
)
GATES = st.builds(
    Gate,
    num_pages=U32,
    reclaim=st.booleans(),
    targets=st.sampled_from(Answer),
    translation=st.just(Translation()) | TRANSLATIONS,
    nudges=st.integers(0, 2),
)


class AnythingInAnyOrder(RuleBasedStateMachine):
    """A driver, a user and a host who do anything, and a policy that says anything.

    Nothing is raised, every chain comes back once and in order, and what is discarded
    is RAM, in whole host pages, sorted and disjoint, and only while the gate is open.
    """

    def __init__(self):
        super().__init__()
        self.host = FakeHost(ram=[(0, RAM_PAGES), (8200, 100)])
        self.made = rig(ScriptedPolicy(), self.host, **EVERYTHING)
        self.heads = {index: [] for index in self.host.queues}
        self.inhibited = False
        self.broke = False
        self.ready = False
        self.checked = 0
        self.device = self.made.device

    # the host

    @rule(host_page_size=st.sampled_from([4096, 65536]), gone=st.booleans())
    def plug(self, host_page_size, gone):
        ram = [(0, RAM_PAGES)] if gone else [(0, RAM_PAGES), (8200, 100)]
        waiting = [queue.waiting for queue in self.host.queues.values()]
        if not any(waiting):  # their bytes would be gone
            self.host.plug(ram, host_page_size=host_page_size)
            self.device.guest_changed()

    @rule()
    def reset(self):
        for queue in self.host.queues.values():
            queue.broken = queue.breaks = None
            queue.available.clear()
            queue.held.clear()
            queue.returned.clear()
        self.heads = {index: [] for index in self.host.queues}
        self.broke = self.ready = False
        self.device.reset()

    @rule()
    def tick(self):
        self.host.clock += 1
        self.device.tick()

    @rule(given_back=st.none() | st.integers(0, 10))
    def discard_in_part(self, given_back):
        self.host.given_back = given_back

    @rule(same=st.booleans())
    def migrate(self, same):
        state = json.loads(json.dumps(self.device.save()))
        if not same:
            state["policy"]["policy_state"] = None
        policy = ScriptedPolicy(self.made.policy.gate)
        self.made = rig(policy, self.host, **EVERYTHING)
        self.device = self.made.device
        self.inhibited = False
        for queue in self.host.queues.values():
            queue.restart()
        self.device.load(state)

    # the user

    @rule(num_pages=st.integers(-2, RAM_PAGES + 2) | U32)
    def set_target(self, num_pages):
        try:
            reply = self.device.set_target(num_pages)
        except HostError:
            assert num_pages < 0
        else:
            assert reply.requested == self.device.query().requested <= RAM_PAGES + 100

    @rule(seconds=st.integers(-1, 3))
    def set_stats_interval(self, seconds):
        try:
            self.device.set_stats_interval(seconds)
        except HostError:
            assert seconds < 0

    @rule(reason=st.sampled_from([None, "pinned"]))
    def set_inhibited(self, reason):
        self.device.set_inhibited(reason)
        self.inhibited = reason is not None

    @rule()
    def start_hinting(self):
        try:
            self.device.start_hinting()
        except HostError:
            assert not (self.device.query().features or 0) & 1 << 3 or not self.ready

    @rule()
    def stop_hinting(self):
        self.device.stop_hinting()

    # the policy

    @rule(gate=GATES)
    def decide(self, gate):
        self.made.policy.gate = gate

    @rule(gate=GATES, judgement=st.sampled_from(Judgement))
    def set_policy(self, gate, judgement):
        policy = self.made.policy = ScriptedPolicy(gate)
        policy.verdict = Verdict(judgement, "NEW")
        change_policy(self.device, policy)

    @rule(gate=GATES, event=st.sampled_from([PagesInflated, ActualWritten, TargetRead]))
    def decide_later(self, gate, event):
        self.made.policy.after = {event: gate}

    @rule(hook=st.sampled_from([*POLICY_HOOKS, "policy_save"]), error=st.booleans())
    def fail(self, hook, error):
        if error:
            self.made.policy.raises[hook] = RuntimeError("boom")
        else:
            self.made.policy.answers[hook] = None

    @rule()
    def recover(self):
        self.made.policy.raises.clear()
        self.made.policy.answers.clear()

    # the driver

    @rule(features=st.integers(0, 2**64 - 1) | st.sampled_from([0, 0x3F]))
    def set_features(self, features):
        assert 0 <= self.device.get_features() < 1 << 24
        self.device.set_features(features)

    @rule()
    def driver_ready(self):
        self.ready = True
        self.device.driver_ready()

    @rule(offset=st.integers(0, 20) | U32, size=st.integers(0, 300))
    def get_config(self, offset, size):
        assert len(self.device.get_config(offset, size)) == size

    @rule(offset=st.integers(0, 20) | U32, data=st.binary(max_size=20))
    def set_config(self, offset, data):
        self.device.set_config(offset, data)

    @rule(index=QUEUE, pfns=PFNS)
    def offer(self, index, pfns):
        self.heads[index].append(self.host.queues[index].offer(*pfns))

    @rule(
        index=QUEUE,
        parts=st.lists(st.binary(max_size=9), max_size=4),
        fault=st.none() | st.just("it has a loop"),
    )
    def offer_bytes(self, index, parts, fault):
        queue = self.host.queues[index]
        self.heads[index].append(queue.offer_bytes(*parts, fault=fault))

    @rule(
        index=QUEUE,
        readable=PARTS,
        writable=PARTS,
    )
    def offer_chain(self, index, readable, writable):
        head = self.host.queues[index].offer_chain(readable, writable)
        self.heads[index].append(head)

    @rule(index=st.integers(0, 5) | st.just(2**31))
    def kick(self, index):
        while self.device.queue_notify(index):
            pass

        # D15: of a modern driver nothing is consumed before DRIVER_OK.
        modern = (self.device.query().features or 0) >> 32 & 1
        if index in self.heads and not self.broke and (self.ready or not modern):
            # The newest buffer for statistics is kept.
            most = len(self.heads[index]) - (index == STATSQ)
            assert self.host.queues[index].returned[:most] == self.heads[index][:most]

    @rule(index=QUEUE)
    def break_ring(self, index):
        self.host.queues[index].breaks = "lost"
        self.broke = True

    # what always holds

    @invariant()
    def nothing_comes_back_twice_or_out_of_order(self):
        for index, queue in self.host.queues.items():
            assert queue.returned == self.heads[index][: len(queue.returned)]

    @invariant()
    def discards_are_ram_sorted_disjoint_and_allowed(self):
        size = self.host.facts.host_page_size // PAGE
        bounds = [
            (part.start // PAGE, (part.start + part.size) // PAGE)
            for part in self.host.facts.ram
        ]
        for what, *rest in self.host.log[self.checked :]:
            if what == "discard":
                (runs,) = rest
                assert self.device.query().gate.reclaim
                assert not self.inhibited
                for first, count in runs:
                    assert count > 0
                    assert first % size == count % size == 0
                    assert any(
                        low <= first and first + count <= high for low, high in bounds
                    )
                for run, following in itertools.pairwise(runs):
                    assert sum(run) <= following[0]
        self.checked = len(self.host.log)

    @invariant()
    def a_query_is_honest(self):
        shown = self.device.query()
        assert 0 <= shown.reclaimed <= shown.ballooned <= shown.ram
        assert 0 <= shown.actual <= shown.ram
        assert shown.advertised == shown.gate.num_pages
        assert shown.ram == self.host.facts.ram_pages


TestAnythingInAnyOrder = AnythingInAnyOrder.TestCase
