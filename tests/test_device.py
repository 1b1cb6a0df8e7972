"""The balloon by the rules of ``docs/architecture.md``, one section for each.

The host is a list of what the device did to it, the policy does what the test says, and
the driver may be anybody. What becomes of pages is in ``test_inventory``.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from fakes import (
    BUFFERS,
    MUST_TELL_HOST,
    OPEN,
    OUTSIDE,
    PAGE,
    RAM_PAGES,
    REFUSING,
    SHUT,
    STATS_VQ,
    FakeHost,
    Recorder,
    ScriptedPolicy,
    follow,
    opened,
    rig,
    told,
    words,
)
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.core import MAX_BUFFER_BYTES
from balloon_plugin.errors import HostError
from balloon_plugin.events import (
    ActualWritten,
    Answer,
    ByteOrder,
    DeviceReset,
    DriverReady,
    FeaturesAcked,
    Gate,
    GuestDescribed,
    GuestFault,
    Judgement,
    PagesInflated,
    PagesReclaimed,
    PluginFailed,
    QueueSeen,
    TargetRead,
    TargetReply,
    TargetRequested,
    TimePassed,
    Translation,
)
from balloon_plugin.manager import make_device

# --- rule 3: every buffer comes back ------------------------------------------------


FAULTY = {
    "no parts at all": lambda queue: queue.offer_chain(),
    "an empty part": lambda queue: queue.offer_bytes(b""),
    "only empty parts": lambda queue: queue.offer_bytes(*[b""] * 100),
    "a part outside RAM": lambda queue: queue.offer_chain([(OUTSIDE, 4)]),
    "a part that leaves RAM": lambda queue: queue.offer_chain([(OUTSIDE - 4, 8)]),
    "a part at the end of the world": lambda queue: queue.offer_chain(
        [(2**64 - 4, 2**32 - 1)]
    ),
    "a huge part": lambda queue: queue.offer_chain([(0, OUTSIDE)]),
    "many huge parts": lambda queue: queue.offer_chain([(0, OUTSIDE)] * 100),
    "too short for a number": lambda queue: queue.offer_bytes(b"\x01\x02\x03"),
    "a number and a half": lambda queue: queue.offer_bytes(words(1) + b"\xff"),
    "only for writing": lambda queue: queue.offer_chain([], [(BUFFERS, 4096)]),
    "for reading and writing": lambda queue: queue.offer_chain(
        [(queue.place(words(1)), 4)], [(BUFFERS, 4096)]
    ),
    "broken from the start": lambda queue: queue.offer_chain(fault="it has a loop"),
    "broken in the middle": lambda queue: queue.offer_bytes(
        words(1), fault="it has a loop"
    ),
    "numbers outside RAM": lambda queue: queue.offer(RAM_PAGES, 2**32 - 1),
    "the same number a thousand times": lambda queue: queue.offer(*[9] * 1000),
}


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("gate", [SHUT, OPEN], ids=["shut", "open"])
@pytest.mark.parametrize("kind", FAULTY)
def test_a_faulty_buffer_comes_back_with_its_neighbours(kind, gate, index):
    made = rig(ScriptedPolicy(gate))
    queue = made.host.queues[index]
    heads = [queue.offer(100), FAULTY[kind](queue), queue.offer(101)]

    more = made.device.queue_notify(index)

    assert not more
    assert queue.returned == heads
    assert made.host.count("notify") == 1
    assert made.host.count("reset") == 0


@pytest.mark.parametrize(
    "kind",
    [
        "a part outside RAM",
        "a part that leaves RAM",
        "a part at the end of the world",
        "broken from the start",
        "broken in the middle",
        "numbers outside RAM",
    ],
)
@pytest.mark.parametrize("index", [0, 1])
def test_what_was_wrong_is_told_and_counted(kind, index):
    made = rig()
    FAULTY[kind](made.host.queues[index])

    made.device.queue_notify(index)

    (fault,) = made.recorder.of(GuestFault)
    assert fault.queue == index
    assert made.device.query().faults == 1
    assert made.device.query().last_fault == fault.what


def test_numbers_before_a_fault_count():
    made = opened()

    FAULTY["broken in the middle"](made.inflateq)
    made.device.queue_notify(0)

    assert made.host.discards == [(1, 1)]


def test_numbers_behind_the_bound_of_a_buffer_are_ignored():
    made = opened()
    most = MAX_BUFFER_BYTES // 4
    address = made.inflateq.place(words(*range(1000)) * 20)

    made.inflateq.offer_chain([(address, 40_000), (address, 40_000)])
    made.device.queue_notify(0)

    (seen,) = made.recorder.of(PagesInflated)
    assert len(seen.pfns) == most


def test_a_driver_that_wants_no_notification_gets_none():
    made = opened()
    made.inflateq.wanted = False
    head = made.inflate(1)

    assert made.log == [("discard", ((1, 1),)), ("push", 0, [head])]


def test_a_batch_is_one_discard_one_push_and_one_notification():
    made = opened()
    heads = [made.inflateq.offer(pfn) for pfn in (3, 1, 2)]

    made.device.queue_notify(0)

    assert made.log == [
        ("discard", ((1, 3),)),
        ("push", 0, heads),
        ("notify", 0),
    ]


def test_where_the_queues_are_is_told_before_their_first_buffer():
    made = opened()
    made.forget()

    for _ in range(2):
        made.host.queues[0].offer(5)
        made.device.queue_notify(0)

    first, second, buffer = made.recorder.events[:3]
    assert first == QueueSeen(0, made.host.queues[0].desc)
    assert second == QueueSeen(1, made.host.queues[1].desc)
    assert buffer == PagesInflated((5,))
    assert len(made.recorder.of(QueueSeen)) == 2

    made.device.reset()
    made.host.queues[0].offer(5)
    made.device.queue_notify(0)

    assert len(made.recorder.of(QueueSeen)) == 4


def test_a_queue_that_the_driver_starts_late_is_told_then():
    made = opened()
    late, made.host.queues[1] = made.host.queues[1], None

    made.inflate(5)
    made.inflate(6)
    before = [event.index for event in made.recorder.of(QueueSeen)]
    made.host.queues[1] = late
    made.inflate(7)

    assert before == [0]
    assert [event.index for event in made.recorder.of(QueueSeen)] == [0, 1]
    assert made.faults == []


@pytest.mark.parametrize("index", [3, 4, 5])
def test_a_kick_of_a_queue_that_was_not_offered_is_nothing(index):
    made = opened()

    assert made.device.queue_notify(index) is False
    assert made.faults == []


def test_time_passes_for_a_device_without_statistics():
    made = opened(statistics=False)
    made.device.driver_ready()
    made.forget()

    made.device.tick()

    assert made.log == []


def test_an_empty_buffer_comes_back_and_is_shown_to_nobody():
    made = opened()

    head = made.inflate()

    assert made.inflateq.returned == [head]
    assert made.recorder.of(PagesInflated) == []


def test_a_spurious_kick_does_nothing():
    made = opened()
    made.forget()

    more = made.device.queue_notify(0)

    assert not more
    assert made.log == []
    assert made.recorder.events == []
    assert not made.device.query().driver


@pytest.mark.parametrize("index", [2, 5, 255, 2**31])
def test_a_kick_of_a_queue_that_is_none_does_nothing(index):
    made = opened()

    assert made.device.queue_notify(index) is False


def test_a_kick_of_a_queue_that_is_not_started_does_nothing():
    made = opened()
    made.host.queues[0] = None

    assert made.device.queue_notify(0) is False


def test_buffers_before_driver_ok_are_served():
    made = opened()

    head = made.inflate(1)

    assert made.inflateq.returned == [head]
    assert made.host.discards == [(1, 1)]


# --- rule 4: a verdict dies with its driver -----------------------------------------


def test_a_reset_forgets_the_driver_and_keeps_the_target():
    made = opened(gate=follow)
    made.device.set_target(100)
    made.device.set_features(0)
    made.device.driver_ready()
    made.write_actual(100)
    made.inflate(1, 2**32 - 1)
    assert made.device.query().faults == 1

    made.device.reset()

    shown = made.device.query()
    assert shown.requested == 100
    assert (shown.actual, shown.ballooned, shown.reclaimed) == (0, 0, 0)
    assert (shown.features, shown.driver) == (None, False)
    assert (shown.faults, shown.last_fault) == (0, "")
    assert made.device.get_config(4, 12) == bytes(12)


def test_a_reset_is_told_to_the_policy_which_decides_anew():
    made = opened()
    made.policy.after[DeviceReset] = SHUT

    made.device.reset()
    made.inflate(1)

    assert DeviceReset() in made.policy.seen
    assert made.host.discards == []


def test_half_a_value_of_the_last_driver_does_not_count():
    made = rig()
    made.device.set_config(4, b"\xff\xff\xff")

    made.device.reset()
    made.device.set_config(7, b"\x00")

    assert made.recorder.of(ActualWritten) == [ActualWritten(0)]


def test_after_a_reset_driver_ok_counts_anew():
    made = opened()
    made.device.driver_ready()
    made.device.reset()
    made.forget()
    made.policy.gate = SHUT

    made.device.tick()

    assert made.log == []


def test_pages_of_the_last_driver_do_not_make_a_host_page():
    made = told()
    made.inflate(*range(8))
    made.device.reset()
    made.device.set_features(MUST_TELL_HOST)

    made.inflate(*range(8, 16))

    assert made.host.discards == []


def test_a_probe_begins_anew_with_each_driver():
    made = rig("probe")
    made.write_actual(256)
    assert made.device.query().verdict.judgement is Judgement.BUGGY

    made.device.reset()

    assert made.device.query().verdict.judgement is Judgement.UNDECIDED
    assert made.target() == 16


# --- rule 5: ``actual`` counts when its last byte is written ------------------------


SPLITS = [
    list(itertools.pairwise([0, *cuts, 4]))
    for count in range(4)
    for cuts in itertools.combinations([1, 2, 3], count)
]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 15, 16, 17, 255, 256, 272, 2**32 - 1])
            | st.integers(0, 2**32 - 1),
            st.sampled_from(SPLITS),
        ),
        max_size=8,
    )
)
def test_each_value_of_actual_is_seen_once_and_whole(writes):
    made = rig()

    for value, split in writes:
        data = value.to_bytes(4, "little")
        for start, end in split:
            made.device.set_config(4 + start, data[start:end])

    values = [value for value, _ in writes]
    assert made.recorder.of(ActualWritten) == [ActualWritten(value) for value in values]


def test_a_torn_value_leads_no_probe_astray():
    made = rig("probe")

    for at, byte in enumerate((272).to_bytes(4, "little"), 4):
        made.device.set_config(at, bytes([byte]))

    assert made.device.query().verdict.judgement is Judgement.BUGGY


def test_poison_is_not_actual():
    made = rig(page_poison=True)
    made.write_actual(16)
    made.forget()

    made.device.set_config(12, b"\xaa\xaa\xaa\xaa")

    assert made.recorder.events == []
    assert made.device.get_config(12, 4) == b"\xaa\xaa\xaa\xaa"


@pytest.mark.parametrize("size", [8, 16])
def test_a_write_of_the_space_with_a_stale_target_is_actual_alone(size):
    made = opened()

    made.device.set_config(0, (words(16, 16) + bytes(8))[:size])

    assert made.recorder.of(ActualWritten) == [ActualWritten(16)]
    assert made.target() == OPEN.num_pages


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (0, b"\xff\xff\xff\xff"),
        (0, b"\xff" * 7),
        (3, b"\xff"),
        (8, b"\xff\xff\xff\xff"),
        (8, b"\xff" * 500),
        (16, b"\xff"),
        (255, b"\xff" * 4),
        (2**32 - 1, b"\xff" * 4),
        (2**64, b"\xff" * 4),
        (4, b""),
        (7, b""),
        (8, b""),
    ],
)
def test_a_write_without_the_last_byte_of_actual_is_none(offset, data):
    made = opened()

    made.device.set_config(offset, data)

    assert made.recorder.of(ActualWritten) == []
    assert made.device.get_config(4, 4) == bytes(4)
    assert made.target() == OPEN.num_pages


# --- the configuration space --------------------------------------------------------


def test_the_space_is_little_endian_for_a_big_endian_guest():
    made = opened(FakeHost(byte_order=ByteOrder.BIG), replace(OPEN, num_pages=16))

    made.device.set_config(4, b"\x10\x00\x00\x00")

    assert made.device.get_config(0, 8) == b"\x10\x00\x00\x00\x10\x00\x00\x00"
    assert made.recorder.of(ActualWritten) == [ActualWritten(16)]


@given(
    st.integers(0, 20) | st.sampled_from([255, 2**32, 2**64]),
    st.integers(0, 300),
)
def test_a_read_is_exactly_as_long_as_asked_for(offset, size):
    made = opened()

    data = made.device.get_config(offset, size)

    space = words(OPEN.num_pages, 0, 0, 0) + bytes(300)
    assert len(data) == size
    assert data == (space[offset:] + bytes(size))[:size]


def test_a_target_read_byte_by_byte_is_read_once():
    made = opened()
    made.forget()

    for at in range(4):
        made.device.get_config(at, 1)

    assert made.recorder.events == [TargetRead(OPEN.num_pages)]


def test_a_target_that_changes_while_it_is_read_is_told_as_the_driver_found_it():
    made = opened(gate=follow)
    made.device.set_target(0x0403)
    made.device.get_config(0, 1)
    made.device.set_target(0x0201)
    made.forget()

    data = [made.device.get_config(at, 1)[0] for at in range(1, 4)]

    assert data == [0x02, 0, 0]
    assert made.recorder.events == [TargetRead(0x0203)]


@pytest.mark.parametrize(("offset", "size"), [(0, 3), (4, 4), (8, 8), (3, 0), (16, 4)])
def test_other_fields_are_no_target(offset, size):
    made = opened()
    made.forget()

    made.device.get_config(offset, size)

    assert made.recorder.events == []


def test_what_the_driver_found_is_what_the_policy_is_told():
    made = opened()
    made.policy.after[TargetRead] = Gate(5, reclaim=True, targets=Answer.ACCEPTED)

    found = made.target()

    assert found == OPEN.num_pages
    assert TargetRead(found) in made.policy.seen
    assert made.target() == 5


# --- rule 6: a guest that errs never raises (see test_device_anything) -------------


def test_a_broken_ring_asks_for_a_reset_once():
    made = opened()
    made.inflateq.breaks = "the driver offers 70000 buffers at once"

    for _ in range(3):
        assert made.device.queue_notify(0) is False

    assert made.host.count("reset") == 1
    assert made.recorder.of(GuestFault) == [
        GuestFault("the driver offers 70000 buffers at once", 0)
    ]


def test_a_ring_that_breaks_between_two_kicks_asks_for_a_reset_too():
    made = opened()
    made.host.queues[2].breaks = "lost"

    for _ in range(3):
        made.device.tick()

    assert made.host.count("reset") == 1
    assert made.faults == ["lost"]


def test_with_a_broken_ring_no_queue_is_served_until_a_reset():
    made = opened()
    made.inflateq.breaks = "lost"
    made.device.queue_notify(0)

    made.deflate(1)
    waiting = made.deflateq.waiting
    made.inflateq.breaks = made.inflateq.broken = None
    made.device.reset()
    made.device.queue_notify(1)

    assert waiting == 1
    assert made.deflateq.waiting == 0


def test_chains_taken_before_the_ring_broke_come_back():
    made = opened()
    head = made.inflateq.offer(1)
    pop = made.inflateq.pop

    def pop_then_break(limit):
        chains = pop(limit)
        made.inflateq.breaks = "lost"
        return chains

    made.inflateq.pop = pop_then_break

    made.device.queue_notify(0)

    assert made.inflateq.returned == [head]
    assert made.host.count("reset") == 1


# --- rule 7: a policy that fails ----------------------------------------------------

AFTERWARDS = Gate(0, reclaim=False, targets=Answer.REFUSED)
POLICY_HOOKS = ["policy_features", "policy_observe", "policy_gate", "policy_verdict"]


def live(made):
    """Let a driver and a user do everything once; return heads and the reply."""
    device = made.device
    device.get_features()
    device.set_features(MUST_TELL_HOST)
    device.driver_ready()
    made.target()
    made.write_actual(16)
    heads = [made.inflate(1), made.deflate(1), made.inflate(2)]
    device.tick()
    reply = device.set_target(50)
    device.query()
    json.dumps(device.save())
    made.host.plug([(0, RAM_PAGES), (8192, 16)])
    device.guest_changed()
    return heads, reply


def assert_lived_shut(made, heads, reply):
    assert made.inflateq.returned == [heads[0], heads[2]]
    assert made.deflateq.returned == [heads[1]]
    assert made.host.discards == []
    assert reply.answer is Answer.REFUSED
    assert len(made.recorder.of(PluginFailed)) == 1
    assert not made.device.query().gate.reclaim


@pytest.mark.parametrize("hook", POLICY_HOOKS)
def test_a_policy_that_raises_is_shut_out_and_the_guest_lives(hook):
    made = opened()
    made.policy.raises[hook] = RuntimeError("boom")
    made.forget()

    heads, reply = live(made)

    assert_lived_shut(made, heads, reply)
    assert "boom" in reply.reason
    assert made.recorder.of(PluginFailed)[0].hook == hook


@pytest.mark.parametrize("hook", POLICY_HOOKS)
def test_a_policy_that_raises_on_a_buffer_does_not_get_it(hook):
    made = opened()
    made.policy.raises[hook] = RuntimeError("boom")
    made.device.get_features()

    head = made.inflate(1)

    assert made.host.discards == []
    assert made.inflateq.returned == [head]


NONSENSE = {
    "no gate": None,
    "a negative target": replace(OPEN, num_pages=-1),
    "a target of 33 bits": replace(OPEN, num_pages=2**32),
    "a target that is no number": replace(OPEN, num_pages="16"),
    "half a page": replace(OPEN, num_pages=0.5),
    "a word for no": replace(OPEN, reclaim="no"),
    "a word for accepted": replace(OPEN, targets="accepted"),
    "no translation": replace(OPEN, translation=None),
    "a slot of words": replace(OPEN, translation=Translation(slot_entries="2")),
    "a word for swapped": replace(OPEN, translation=Translation(swap_pfns="yes")),
    "a number of words": replace(OPEN, translation=Translation(pages_per_pfn="2")),
    "a unit of words": replace(OPEN, translation=Translation(pages_per_unit="2")),
    "more pages than a page has": replace(
        OPEN, translation=Translation(pages_per_pfn=2**18 + 1)
    ),
    "no pages at all": replace(OPEN, translation=Translation(pages_per_pfn=0)),
    "less than nothing": replace(OPEN, translation=Translation(pages_per_unit=-1)),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_a_policy_that_answers_nonsense_is_shut_out_and_the_guest_lives(kind):
    made = opened()
    made.policy.gate = NONSENSE[kind]
    made.forget()

    heads, reply = live(made)

    assert_lived_shut(made, heads, reply)


def test_a_policy_that_saves_nonsense_has_no_verdict_to_save():
    made = opened()
    made.policy.answers["policy_save"] = ["no", "dict"]

    assert made.device.save()["policy"]["policy_state"] is None


def test_a_policy_that_fails_to_save_has_no_verdict_to_save():
    made = opened()
    made.policy.raises["policy_save"] = RuntimeError("boom")

    assert made.device.save()["policy"]["policy_state"] is None


def test_a_failed_policy_is_believed_again_after_a_reset():
    made = opened()
    made.policy.raises["policy_observe"] = RuntimeError("boom")
    made.device.tick()
    made.policy.raises.clear()

    made.device.reset()
    made.inflate(1)

    assert made.host.discards == [(1, 1)]


def test_a_target_refused_by_a_failing_policy_does_not_come_back_later():
    made = opened(gate=follow)
    made.device.set_target(100)
    made.policy.raises["policy_observe"] = RuntimeError("boom")
    made.device.set_target(0)
    made.policy.raises.clear()

    made.device.reset()

    assert made.target() == 100


def test_the_bits_of_a_failing_policy_are_not_offered():
    made = rig()
    made.policy.features = 1 << 22
    made.policy.raises["policy_features"] = RuntimeError("boom")

    assert made.device.get_features() == STATS_VQ


def test_an_observer_that_raises_is_cut_off_and_the_guest_lives():
    made = opened()
    bad = Recorder()
    bad.events = None  # so that it raises
    made.device.plugins.register(bad, name="bad")

    head = made.inflate(1)

    assert made.host.discards == [(1, 1)]
    assert made.inflateq.returned == [head]
    assert [event.plugin for event in made.recorder.of(PluginFailed)] == ["bad"]


# --- rule 8: bounds -----------------------------------------------------------------


def test_a_kick_does_a_bounded_amount_of_work_and_loses_nothing():
    made = opened()
    pfns = range(1000)
    heads = [made.inflateq.offer(*pfns) for _ in range(100)]

    calls = 1
    while made.device.queue_notify(0):
        calls += 1

    assert calls > 1
    assert made.inflateq.returned == heads
    assert made.host.count("notify") == made.host.count("push") == calls


def test_a_kick_of_few_buffers_needs_no_second_one():
    made = opened()
    for _ in range(16):
        made.inflateq.offer(*range(256))

    assert made.device.queue_notify(0) is False


def test_one_guest_in_a_hurry_does_not_starve_the_others():
    made = opened()
    pop = made.inflateq.pop

    def never_empty(limit):
        for _ in range(limit):
            made.inflateq.offer(1)
        return pop(limit)

    made.inflateq.pop = never_empty

    assert made.device.queue_notify(0) is True


def test_empty_buffers_are_work_too():
    made = opened()
    pop = made.inflateq.pop

    def never_empty(limit):
        for _ in range(limit):
            made.inflateq.offer()
        return pop(limit)

    made.inflateq.pop = never_empty

    assert made.device.queue_notify(0) is True


def test_descriptors_without_a_number_are_work_too():
    made = opened()
    reads = 0
    read = made.host.memory.read

    def counted(address, size):
        nonlocal reads
        reads += 1
        return read(address, size)

    made.host.memory.read = counted
    for _ in range(400):
        made.inflateq.offer_chain([(BUFFERS, 0)] * 1024)

    more = made.device.queue_notify(0)

    assert more
    assert reads < 2 * 65536


def test_descriptors_that_are_not_read_are_work_too():
    made = opened()
    for _ in range(400):
        made.inflateq.offer_chain(writable=[(BUFFERS, 0)] * 256)

    assert made.device.queue_notify(0) is True


# --- rule 9: honest answers ---------------------------------------------------------


def test_a_target_is_kept_until_the_guests_memory_is_known():
    made = opened(FakeHost(ram=[]), gate=follow)
    reply = made.device.set_target(RAM_PAGES + 1)
    made.host.plug([(0, RAM_PAGES)])
    made.device.guest_changed()

    assert reply == TargetReply(Answer.ACCEPTED, "", RAM_PAGES + 1)
    assert made.device.query().requested == RAM_PAGES
    assert made.target() == RAM_PAGES


def test_a_target_outlives_memory_that_is_told_piece_by_piece():
    made = opened(FakeHost(ram=[]), gate=follow)
    made.device.set_target(3000)

    for ram in [(0, 160)], [], [(0, 160), (192, RAM_PAGES)]:
        made.host.plug(ram)
        made.device.guest_changed()

    assert made.device.query().requested == 3000
    assert made.target() == 3000


def refuse_another(made):
    made.policy.when = [(TargetRequested(100), REFUSING)]
    made.device.set_target(100)
    made.policy.gate = follow


def inhibit_for_a_while(made):
    made.device.set_inhibited("pinned")
    made.device.set_inhibited(None)


@pytest.mark.parametrize("meanwhile", [refuse_another, inhibit_for_a_while])
def test_a_target_outlives_memory_that_is_gone_for_a_while(meanwhile):
    made = opened(FakeHost(ram=[(0, RAM_PAGES)]), gate=follow)
    made.device.set_target(3000)
    made.host.plug([(0, 2500)])
    made.device.guest_changed()

    meanwhile(made)
    made.host.plug([(0, RAM_PAGES)])
    made.device.guest_changed()

    assert made.device.query().requested == 3000


def test_a_target_is_clamped_and_it_is_said():
    made = opened(gate=follow)

    reply = made.device.set_target(RAM_PAGES + 1)

    assert reply.answer is Answer.ACCEPTED
    assert reply.requested == RAM_PAGES
    assert str(RAM_PAGES) in reply.reason
    assert made.policy.seen[-1] == TargetRequested(RAM_PAGES)
    assert made.target() == RAM_PAGES


def test_all_of_ram_is_not_too_much():
    made = opened(gate=follow)

    reply = made.device.set_target(RAM_PAGES)

    assert reply == TargetReply(Answer.ACCEPTED, "", RAM_PAGES)


def test_a_deferred_target_that_was_clamped_says_so_too():
    made = rig()

    reply = made.device.set_target(RAM_PAGES + 1)

    assert reply.answer is Answer.DEFERRED
    assert str(RAM_PAGES) in reply.reason


def test_a_target_fits_into_the_space_of_a_guest_however_large():
    host = FakeHost()
    made = opened(host, follow)
    host.facts = replace(host.facts, ram=(replace(host.facts.ram[0], size=1 << 45),))
    made.device.guest_changed()

    reply = made.device.set_target(1 << 33)

    assert reply.requested == 2**32 - 1
    assert made.target() == 2**32 - 1


@pytest.mark.parametrize("target", [-1, 1.5, "16"])
def test_a_target_that_is_none_is_the_hosts_mistake(target):
    made = opened()

    with pytest.raises(HostError, match=f"{target!r} pages.* whole number, 0 or more"):
        made.device.set_target(target)
    assert made.device.query().requested == 0


def test_a_query_shows_what_was_asked_for_beside_what_is_shown():
    made = rig()
    made.device.set_target(100)

    shown = made.device.query()

    assert (shown.requested, shown.advertised) == (100, SHUT.num_pages)
    assert shown.gate == SHUT
    assert shown.verdict == made.policy.verdict
    assert shown.ram == RAM_PAGES
    assert shown.features is None
    assert not shown.driver


def test_a_lie_about_actual_is_clamped_and_flagged():
    made = opened()
    made.write_actual(RAM_PAGES)
    honest = made.device.query()

    made.write_actual(2**32 - 1)

    shown = made.device.query()
    assert (honest.actual, honest.actual_clamped) == (RAM_PAGES, False)
    assert (shown.actual, shown.actual_clamped) == (RAM_PAGES, True)


def test_pages_of_a_probe_are_not_shown_as_ballooned():
    made = rig("probe")

    made.inflate(*range(16))
    made.write_actual(16)

    assert made.device.query().actual == 16
    assert made.device.query().balloon_pages == 0


def test_pages_of_a_probe_that_found_a_bug_are_not_shown_either():
    made = rig("probe")

    made.inflate(*range(256))
    made.write_actual(256)

    assert made.device.query().balloon_pages == 0


def test_pages_that_a_user_asked_for_are_shown_when_the_policy_fails():
    made = opened()
    made.inflate(*range(100))
    made.write_actual(100)
    made.policy.raises["policy_observe"] = RuntimeError("boom")

    made.device.tick()

    assert made.device.query().balloon_pages == 100


def test_pages_given_back_are_those_that_the_host_gave_back():
    made = opened()
    made.host.given_back = 0

    made.inflate(1, 2)

    assert made.recorder.of(PagesReclaimed) == [PagesReclaimed(0, ((1, 2),))]
    assert made.device.query().reclaimed == 0
    assert made.device.query().ballooned == 2


def test_pages_taken_back_are_no_longer_given_back():
    made = opened()
    made.inflate(1, 2, 3)

    made.deflate(2)

    assert made.device.query().ballooned == 2
    assert made.device.query().reclaimed == 2


@pytest.mark.parametrize(
    "sign",
    [
        lambda made: made.device.set_features(0),
        lambda made: made.device.driver_ready(),
        lambda made: made.write_actual(0),
        lambda made: made.inflate(1),
        lambda made: made.deflate(1),
    ],
    ids=["features", "ready", "actual", "inflate", "deflate"],
)
def test_a_driver_shows_itself(sign):
    made = rig()

    sign(made)

    assert made.device.query().driver


# --- config interrupts: D15 ---------------------------------------------------------


def test_before_driver_ok_there_is_no_config_interrupt():
    made = opened(gate=follow)

    made.device.set_target(100)
    made.policy.gate = SHUT
    made.device.tick()

    assert made.host.count("config") == 0


LOOKS = {
    "reads its target": lambda made: made.target(),
    "writes actual": lambda made: made.write_actual(0),
    "inflates": lambda made: made.inflate(1),
    "deflates": lambda made: made.deflate(1),
}


@pytest.mark.parametrize("look", LOOKS)
def test_one_that_is_due_comes_with_driver_ok_and_only_once(look):
    made = opened(gate=follow)
    LOOKS[look](made)
    made.device.set_target(100)
    made.device.set_target(200)

    made.device.driver_ready()
    made.device.driver_ready()

    assert made.host.count("config") == 1


def test_a_driver_that_has_not_looked_yet_needs_no_interrupt():
    made = opened(gate=follow)
    made.device.set_target(100)

    made.device.driver_ready()

    assert made.host.count("config") == 0


def test_what_changes_because_the_driver_looked_is_due():
    made = opened()
    made.policy.after[TargetRead] = SHUT

    made.target()
    made.device.driver_ready()

    assert made.host.count("config") == 1


def test_a_gate_that_changes_with_driver_ok_is_announced_once():
    made = opened(gate=follow)
    made.target()
    made.device.set_target(100)
    made.policy.after[DriverReady] = SHUT

    made.device.driver_ready()

    assert made.host.count("config") == 1


def test_none_is_due_where_nothing_changed():
    made = opened()
    made.device.reset()

    made.device.driver_ready()

    assert made.host.count("config") == 0


def test_afterwards_each_change_is_announced_at_once():
    made = opened(gate=follow)
    made.device.driver_ready()
    made.forget()

    made.device.set_target(100)

    assert made.host.count("config") >= 1


def test_a_nudge_wakes_the_driver_although_nothing_changed():
    made = opened()
    made.device.driver_ready()
    made.forget()
    made.policy.gate = replace(OPEN, nudges=1)

    made.device.tick()
    made.device.tick()

    assert made.log == [("config",)]


# --- features -----------------------------------------------------------------------


def test_with_small_host_pages_the_device_wants_statistics_alone():
    assert rig().device.get_features() == STATS_VQ


def test_with_large_host_pages_the_driver_must_tell():
    made = rig(host=FakeHost(host_page_size=65536))

    assert made.device.get_features() == MUST_TELL_HOST | STATS_VQ


def test_what_the_options_say_is_offered():
    made = rig(statistics=False, reporting=True, hinting=True)

    assert made.device.get_features() == 1 << 5 | 1 << 3


def test_what_is_offered_stays_as_long_as_the_driver_that_accepted_of_it():
    made = rig()
    made.policy.features = 1 << 22
    made.device.set_features(0)
    made.policy.features = 1 << 21

    kept = made.device.get_features()
    made.device.reset()

    assert kept == 1 << 22 | STATS_VQ
    assert made.device.query().offered == 1 << 21 | STATS_VQ


@pytest.mark.parametrize("accepted", [0, MUST_TELL_HOST])
def test_memory_on_huge_pages_comes_too_late_to_be_offered_anything_for(accepted):
    made = opened(gate=follow)
    assert made.device.get_features() == STATS_VQ
    made.host.plug([(0, RAM_PAGES)], host_page_size=1 << 21)
    made.device.guest_changed()

    made.device.set_features(1 << 32 | accepted)

    assert made.device.query().offered == STATS_VQ
    assert made.device.query().features == 1 << 32
    assert len(made.faults) == bool(accepted)


def test_the_policys_bits_are_offered_besides():
    made = rig(host=FakeHost(host_page_size=65536))
    made.policy.features = 1 << 22

    assert made.device.get_features() == 1 << 22 | MUST_TELL_HOST | STATS_VQ


@pytest.mark.parametrize("bits", [1 << 24, 1 << 32, 1 << 63])
def test_bits_that_are_the_transports_are_not_the_policys_to_offer(bits):
    made = rig()
    made.policy.features = bits | 1 << 23

    assert made.device.get_features() == 1 << 23 | STATS_VQ


def test_accepted_bits_are_told_transport_bits_included():
    made = rig()
    made.policy.features = 1 << 22
    features = 1 << 22 | 1 << 32 | 1 << 28

    made.device.set_features(features)

    assert made.policy.seen[-1] == FeaturesAcked(features)
    assert made.device.query().features == features
    assert made.faults == []


def test_bits_never_offered_do_not_count():
    made = opened()

    made.device.set_features(1 << 32 | 1 << 5 | MUST_TELL_HOST)

    assert made.policy.seen[-1] == FeaturesAcked(1 << 32)
    assert made.device.query().features == 1 << 32
    assert len(made.faults) == 1
    assert "0x21" in made.faults[0]


# --- guest_changed ------------------------------------------------------------------


def test_the_guest_is_described_first_of_all():
    host = FakeHost(byte_order=ByteOrder.BIG)
    made = rig(host=host)

    assert made.recorder.events[0] == GuestDescribed(host.facts)
    assert made.policy.seen[0] == GuestDescribed(host.facts)


def test_a_guest_of_which_nothing_is_known_yet_is_described_too():
    made = rig("probe", FakeHost(ram=[]))

    assert isinstance(made.recorder.events[0], GuestDescribed)
    assert made.target() == 16


def test_a_change_is_told_once():
    made = rig()
    made.forget()
    made.host.plug([(0, RAM_PAGES), (8192, 16)])

    made.device.guest_changed()
    made.device.guest_changed()

    assert made.recorder.events == [GuestDescribed(made.host.facts)]
    assert made.device.query().ram == RAM_PAGES + 16


def test_the_record_of_regions_that_stay_is_kept():
    made = opened(FakeHost(ram=[(0, RAM_PAGES), (8192, 16)]))
    made.inflate(1, 2, 8192, 8193)

    made.host.plug([(0, RAM_PAGES), (9000, 16)])
    made.device.guest_changed()

    assert made.device.query().ballooned == 2
    assert made.device.query().reclaimed == 2
    made.deflate(1, 2)
    assert made.device.query().ballooned == 0


def test_pages_of_a_new_region_are_ram_at_once():
    made = opened()
    made.host.plug([(0, RAM_PAGES), (8192, 16)])
    made.device.guest_changed()

    made.inflate(8192)

    assert made.host.discards == [(8192, 1)]


def test_pages_of_a_region_that_is_gone_are_not_given_back():
    made = opened(FakeHost(ram=[(0, RAM_PAGES), (8192, 16)]))
    made.host.plug([(0, RAM_PAGES)])
    made.device.guest_changed()

    head = made.inflate(8192)

    assert made.host.discards == []
    assert made.inflateq.returned == [head]


def test_a_host_page_that_cannot_be_is_the_hosts_mistake():
    made = opened()
    made.inflate(1)
    made.host.plug([(0, RAM_PAGES), (8192, 16)], host_page_size=5000)

    for _ in range(2):
        with pytest.raises(HostError, match="5000"):
            made.device.guest_changed()

    assert made.device.query().ballooned == 1


# --- a host's mistakes --------------------------------------------------------------

BEFORE_REALIZE = {
    "reset": lambda device: device.reset(),
    "get_features": lambda device: device.get_features(),
    "set_features": lambda device: device.set_features(0),
    "driver_ready": lambda device: device.driver_ready(),
    "get_config": lambda device: device.get_config(0, 4),
    "set_config": lambda device: device.set_config(4, b"\x10\x00\x00\x00"),
    "queue_notify": lambda device: device.queue_notify(0),
    "set_target": lambda device: device.set_target(1),
    "query": lambda device: device.query(),
    "tick": lambda device: device.tick(),
    "set_stats_interval": lambda device: device.set_stats_interval(1),
    "set_inhibited": lambda device: device.set_inhibited("pinned"),
    "start_hinting": lambda device: device.start_hinting(),
    "stop_hinting": lambda device: device.stop_hinting(),
    "guest_changed": lambda device: device.guest_changed(),
    "save": lambda device: device.save(),
    "load": lambda device: device.load({}),
}


@pytest.mark.parametrize("hook", BEFORE_REALIZE)
def test_before_realize_a_host_is_told_what_to_do(hook):
    device = make_device(ScriptedPolicy(OPEN))

    with pytest.raises(HostError, match=r"call realize\(host\)"):
        BEFORE_REALIZE[hook](device)


@pytest.mark.parametrize("hook", ["queue_notify", "set_target", "tick"])
def test_after_unrealize_a_host_is_told_what_to_do(hook):
    made = opened()
    made.device.unrealize()

    with pytest.raises(HostError, match=r"call realize\(host\)"):
        BEFORE_REALIZE[hook](made.device)


def test_a_device_is_realized_once():
    made = opened()

    with pytest.raises(HostError, match="one device for each guest"):
        made.device.realize(FakeHost())


def test_what_is_no_host_is_told_what_it_lacks():
    class Half(FakeHost):
        discard = property()  # raises AttributeError

    device = make_device(ScriptedPolicy(OPEN))

    with pytest.raises(HostError, match="Half is not a host: it lacks discard; see"):
        device.realize(Half())
    device.realize(FakeHost())


def test_a_host_that_errs_when_it_realizes_may_try_again():
    device = make_device(ScriptedPolicy(OPEN))
    host = FakeHost(host_page_size=5000)

    with pytest.raises(HostError, match="5000"):
        device.realize(host)
    host.plug([(0, RAM_PAGES)], host_page_size=PAGE)
    device.realize(host)

    assert device.query().ram == RAM_PAGES


def test_a_device_that_was_given_up_believes_no_second_guest():
    made = rig("probe")
    made.write_actual(16)
    made.write_actual(0)
    made.inflate(1)
    made.device.unrealize()

    made.device.realize(FakeHost())

    assert made.device.query().verdict.judgement is Judgement.UNDECIDED
    assert made.device.query().ballooned == 0


def test_a_device_may_be_given_up_at_any_time():
    made = opened()
    made.inflate(1)

    made.device.unrealize()
    made.device.unrealize()


# --- time ---------------------------------------------------------------------------


def test_time_passes_as_the_host_says():
    made = rig()
    made.host.clock = 12.5

    made.device.tick()

    assert made.policy.seen[-1] == TimePassed(12.5)
