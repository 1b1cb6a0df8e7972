"""The policy ``evidence`` while guest, user and host do anything at any moment.

Twice with a driver that stays what it is, and once with events that no driver sends.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

from evidence_model import (
    BIG,
    INDIRECT,
    LINUX_3_3,
    LINUX_3_4,
    LINUX_3_8,
    LINUX_4_7,
    LINUX_4_10,
    LINUX_5_8,
    LINUX_6_12,
    LITTLE,
    REPORTING,
    VERSION_1,
    Case,
    World,
    compact,
    live,
    out_of_memory,
    poll_stats,
    settle,
    swap,
)
from evidence_script import FILLED, GIB, HIGH, RAM, SHIFTED, SHRUNK, pages
from examples import times
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from balloon_plugin.events import (
    ActualWritten,
    Answer,
    Defect,
    DeviceReset,
    DriverReady,
    FeaturesAcked,
    GuestDescribed,
    GuestFacts,
    Judgement,
    MemoryRange,
    PagesDeflated,
    PagesInflated,
    QueueSeen,
    StatsReceived,
    TargetRead,
    TargetRequested,
    TimePassed,
    Translation,
)
from balloon_plugin.policies.evidence import EvidencePolicy

# All that have one thread or another; only these can be moved, or go out of memory.
LINUX = (LINUX_3_4, LINUX_3_8, LINUX_4_7, LINUX_4_10, LINUX_5_8, LINUX_6_12)
SILENT_DEFECTS = ((Defect.NO_ACTUAL,), (Defect.NO_DEFLATE,))
"""What a driver that stood still for long may be said to have, until it goes on."""

SETTINGS = times(
    0.3,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


class Chaos(RuleBasedStateMachine):
    """What can happen to any driver. A subclass says to which, and what must hold."""

    def begin(self, case, **options):
        self.make = lambda: EvidencePolicy(**options)
        self.world = World(case, self.make(), make_policy=self.make)
        self.life = live(self.world)

    @rule(steps=st.integers(1, 30))
    def driver_goes_on(self, steps):
        for state in itertools.islice(self.life, steps):
            if state == "idle":
                break

    @rule(pages=st.sampled_from([0, 1, 5, 16, 33, 255, 256, 1000, 1024]))
    def user_asks(self, pages):
        self.world.set_target(pages)

    @rule()
    def page_is_moved(self):
        compact(self.world)

    @rule()
    def statistics_are_polled(self):
        if self.world.ready:
            poll_stats(self.world)

    @rule(polls=st.integers(1, 70))
    def statistics_are_polled_for_long(self, polls):
        for _ in range(polls):
            self.statistics_are_polled()

    @rule()
    def somebody_else_reads_the_space(self):
        self.world.emit(TargetRead(self.world.gate.num_pages))

    @rule(frames=st.sampled_from([None, 0, 1, 3, 20, 200]))
    def memory_is_short(self, frames):
        self.world.limit = frames

    @rule()
    def time_passes(self):
        self.world.tick()

    @rule()
    def host_saves_and_loads(self):
        self.world.copy()

    @rule()
    def driver_begins_anew(self):
        world = self.world
        world.frames.clear()
        world.reclaimed.clear()
        world.ready = False
        self.life = live(world)


class RightDriver(Chaos):
    """Never judged BUGGY, but for silence; with memory and time it is GOOD."""

    @initialize(
        driver=st.sampled_from(LINUX),
        order=st.sampled_from([LITTLE, BIG]),
        page=st.sampled_from([1, 2, 4, 16, 64]),
        layout=st.sampled_from(["low", "arm", "hole"]),
        allocation=st.sampled_from(["up", "down", "scattered", "alternate"]),
        modern=st.booleans(),
        knows=st.sampled_from(["", "order", "order, page"]),
        bytewise=st.booleans(),
        late_features=st.booleans(),
        aligned=st.booleans(),
        patience=st.sampled_from([5, 3600]),
    )
    def boot(self, driver, modern, patience, **case):
        self.patience = patience
        modern = modern and bool(driver.features & VERSION_1)
        self.begin(Case(driver, modern=modern, **case), patience=patience)

    @precondition(lambda self: self.world.case.modern)
    @rule()
    def memory_runs_out(self):
        # On a legacy bus this feature proves a driver good at once.
        out_of_memory(self.world)

    @invariant()
    def right_is_never_wrong(self):
        verdict = self.world.verdict
        assert verdict.defects in ((), *SILENT_DEFECTS)
        if self.patience == 3600:
            assert verdict.judgement is not Judgement.BUGGY
            assert verdict.state in ("FILL", "SHRINK", "GOOD")
        for one in self.world.verdict.evidence:
            assert one.shows != "No driver that is known would do this."

    def teardown(self):
        self.world.limit = None
        settle(self.world, self.life)
        assert self.world.verdict.judgement is Judgement.GOOD
        assert self.world.verdict.defects == ()
        for target in (3000, 64):
            assert self.world.set_target(target) is Answer.ACCEPTED
            self.world.irq = True
            settle(self.world, self.life, 2)
            page = self.world.case.page
            assert self.world.pages == -(-target // page) * page


class ShiftingDriver(Chaos):
    """It frees pages in use when it deflates: it is never shown a smaller target."""

    @initialize(
        order=st.sampled_from([LITTLE, BIG]),
        page=st.sampled_from([4, 16]),
        layout=st.sampled_from(["low", "arm", "hole", "huge"]),
        allocation=st.sampled_from(["up", "down", "scattered", "alternate"]),
        knows=st.sampled_from(["", "order", "order, page"]),
        bytewise=st.booleans(),
        late_features=st.booleans(),
        aligned=st.booleans(),
        first=st.lists(st.sampled_from([0, 1, 2, 10, 16, 33, 200]), max_size=3),
        options=st.fixed_dictionaries(
            {name: st.booleans() for name in ("swap", "translate", "align")}
        ),
    )
    def boot(self, first, options, **case):
        # The world itself raises where the driver would deflate, or a page is lost.
        self.begin(Case(LINUX_3_3, first=tuple(first), **case), **options)

    @invariant()
    def nothing_is_lost(self):
        assert not self.world.harm
        assert not self.world.gate.reclaim
        assert self.world.verdict.judgement is not Judgement.GOOD

    def teardown(self):
        self.world.limit = None
        settle(self.world, self.life)
        assert self.world.verdict.judgement is Judgement.BUGGY


NUMBERS = st.sampled_from([0, 1, 2, 16, 33, 64, 256, swap(33), 2**32 - 1])
ENTRIES = st.one_of(
    st.builds(pages, st.integers(0, 40), st.sampled_from([HIGH, HIGH + 1, HIGH + 33])),
    st.builds(pages, st.sampled_from([256, 300]), st.integers(0, 1 << 18)),
    st.lists(st.integers(0, 2**32 - 1), max_size=20).map(tuple),
    st.sampled_from([SHIFTED, (HIGH, 0), (2**32 - 1,) * 3, pages(33) + (0,) * 223]),
)
HOSTS = st.builds(
    GuestFacts,
    ram=st.sampled_from(
        [(), RAM, (MemoryRange(GIB, GIB),), (*RAM, MemoryRange(4 * GIB, GIB))]
    ),
    byte_order=st.sampled_from([None, LITTLE, BIG]),
    page_size=st.sampled_from([None, 4096, 65536, 5]),
)
FEATURES = st.one_of(
    st.sampled_from([0, INDIRECT, VERSION_1, INDIRECT | VERSION_1, REPORTING]),
    st.integers(0, 2**64 - 1),
)
EVENTS = st.one_of(
    st.just(DriverReady()),
    st.just(StatsReceived(((4, 1),))),
    FEATURES.map(FeaturesAcked),
    st.builds(QueueSeen, st.integers(0, 3), st.sampled_from([0x10000, 0x41000, 64])),
    NUMBERS.map(TargetRead),
    NUMBERS.map(ActualWritten),
    ENTRIES.map(PagesInflated),
    ENTRIES.map(PagesDeflated),
)


class AnyEvents(RuleBasedStateMachine):
    """The gate stays sound, and neither saving nor resetting leaves anything behind.

    There is a twin, which is saved and loaded before every event.
    """

    @initialize(
        options=st.sampled_from(
            [{}, {"hold": "no", "swap": "no"}, {"translate": "no"}, {"endian_safe": 22}]
        )
    )
    def begin(self, options):
        self.make = lambda: EvidencePolicy(**options)
        self.policy = self.make()
        self.facts, self.requested, self.now = GuestFacts(()), 0, 0.0
        self.twin = self.copy()

    def copy(self):
        other = self.make()
        other.policy_observe(GuestDescribed(self.facts))
        other.policy_load(json.loads(json.dumps(self.policy.policy_save())))
        other.policy_gate(self.requested)
        return other

    def happens(self, event):
        self.twin = self.copy()
        for policy in (self.policy, self.twin):
            policy.policy_observe(event)
            policy.policy_gate(self.requested)

    @rule(event=EVENTS)
    def driver_does(self, event):
        self.happens(event)

    @rule()
    def driver_follows_what_it_is_shown(self):
        shown = self.policy.policy_gate(self.requested).num_pages
        for event in (TargetRead(shown), ActualWritten(min(shown, 33))):
            self.happens(event)

    @rule(story=st.sampled_from([FILLED, SHRUNK]))
    def driver_does_right(self, story):
        for event in story:
            self.happens(event)

    @rule(facts=HOSTS)
    def host_says(self, facts):
        self.happens(GuestDescribed(facts))
        self.facts = facts

    @rule(wanted=NUMBERS)
    def user_asks(self, wanted):
        self.requested = wanted
        self.happens(TargetRequested(wanted))

    @rule(seconds=st.sampled_from([-50, 0, 1, 2, 5, 70]))
    def time_passes(self, seconds):
        # The clock of one host says nothing on another, so the twin begins to wait.
        self.now += seconds
        self.policy.policy_observe(TimePassed(self.now))
        self.policy.policy_gate(self.requested)
        self.twin = self.copy()

    @rule()
    def driver_is_reset(self):
        fresh = self.make()
        fresh.policy_observe(GuestDescribed(self.facts))

        self.happens(DeviceReset())

        assert fresh.policy_gate(self.requested) == self.gate
        assert fresh.policy_verdict() == self.verdict
        assert fresh.policy_save() == self.policy.policy_save()

    @property
    def gate(self):
        return self.policy.policy_gate(self.requested)

    @property
    def verdict(self):
        return self.policy.policy_verdict()

    @invariant()
    def gate_is_sound(self):
        gate, verdict = self.gate, self.verdict
        is_open = verdict.state in ("GOOD", "WORKING")
        assert 0 <= gate.num_pages < 1 << 32
        assert (gate.targets is Answer.ACCEPTED) is is_open
        assert bool(gate.reason) is not is_open
        assert is_open or not gate.reclaim
        assert is_open or gate.translation == Translation()
        assert is_open or gate.entries is None
        assert self.gate == gate

    @invariant()
    def verdict_is_sound(self):
        verdict = self.verdict
        good = verdict.judgement is Judgement.GOOD
        assert good is (verdict.state == "GOOD")
        assert not (good and verdict.defects)
        undecided = verdict.judgement is Judgement.UNDECIDED
        assert undecided <= (verdict.state in ("FILL", "SHRINK"))
        assert undecided or verdict.evidence
        assert len(verdict.evidence) <= 30
        for one in verdict.evidence:
            assert 0 < len(one.event) < 60
            assert 0 < len(one.shows) < 200
            assert one.shows[0].isupper()
            assert one.shows.endswith(".")

    @invariant()
    def saving_is_not_seen(self):
        gate = self.twin.policy_gate(self.requested)
        assert replace(gate, nudges=0) == replace(self.gate, nudges=0)
        assert self.twin.policy_verdict() == self.verdict
        saved = self.policy.policy_save()
        assert self.twin.policy_save() == saved
        assert len(json.dumps(saved)) < 1 << 20


TestRightDriver = RightDriver.TestCase
TestRightDriver.settings = SETTINGS
TestShiftingDriver = ShiftingDriver.TestCase
TestShiftingDriver.settings = SETTINGS
TestAnyEvents = AnyEvents.TestCase
TestAnyEvents.settings = SETTINGS
