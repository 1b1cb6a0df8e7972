"""What VIRTIO 1.3 §5.5 demands of a traditional memory balloon, D1 to D14.

One test for each requirement, with its section; where the specification leaves a
choice, the test shows ours. What is demanded of every device stands beside this file.
"""

from __future__ import annotations

import struct

import pytest
from fakes import (
    MUST_TELL_HOST,
    OPEN,
    PAGE,
    SHUT,
    STATS_VQ,
    FakeHost,
    ScriptedPolicy,
    follow,
    opened,
    rig,
    words,
)
from ring import DriverRing

from balloon_plugin.events import ActualWritten, ByteOrder, PagesHinted, StatsReceived
from balloon_plugin.virtqueue import Ring, open_queue

HINT, POISON, REPORTING = 1 << 3, 1 << 4, 1 << 5
VERSION_1 = 1 << 32
STATSQ, HINTQ, REPORTQ = 2, 3, 3
STOP, DONE = 0, 1


def accepted(made, features, *, ready=True):
    """Let a driver accept features, and set DRIVER_OK."""
    made.device.set_features(features)
    if ready:
        made.device.driver_ready()
    return made


def hinted(made):
    return [(event.command, event.runs) for event in made.recorder.of(PagesHinted)]


def command(made):
    return int.from_bytes(made.device.get_config(8, 4), "little")


def hint(made, *numbers, first=100, order="<"):
    """Let the driver send these command ids, and then 4 pages."""
    queue = made.host.queues[HINTQ]
    for number in numbers:
        queue.offer_bytes(struct.pack(f"{order}I", number))
    queue.offer_chain(writable=[(first * PAGE, 4 * PAGE)])
    made.device.queue_notify(HINTQ)


# --- features and configuration -----------------------------------------------------


def test_d01_a_driver_that_will_not_tell_is_served_all_the_same():
    """§5.5.3.2: if MUST_TELL_HOST is not accepted, MAY refuse FEATURES_OK.

    It is not refused. What the device wanted it for is left out instead: host pages
    that are collected over several buffers.
    """
    made = accepted(opened(FakeHost(host_page_size=65536)), 0)
    assert made.device.query().offered & MUST_TELL_HOST

    made.inflate(*range(16, 24))
    made.inflate(*range(24, 32))
    made.inflate(*range(32, 48))

    assert made.host.discards == [(32, 16)]
    assert len(made.inflateq.returned) == 3


def test_d02_a_legacy_driver_may_use_pages_before_it_tells():
    """§5.5.3.2, legacy: MUST support drivers without MUST_TELL_HOST, SHOULD allow the
    guest to use memory before notifying the host.

    So that after its inflate buffer no page of it is touched any more.
    """
    made = accepted(rig(ScriptedPolicy(SHUT)), 0)
    made.inflate(*range(100))
    made.policy.gate = OPEN

    for _ in range(3):
        made.device.tick()
    made.device.set_inhibited("a device")
    made.device.set_inhibited(None)
    made.device.tick()

    assert made.host.discards == []


@pytest.mark.parametrize("order", ByteOrder)
def test_d03_num_pages_and_actual_are_there_and_little_endian(order):
    """§5.5.4: num_pages and actual are always available; legacy, MUST be little-endian
    whatever the guest is."""
    made = rig(ScriptedPolicy(follow), FakeHost(byte_order=order), statistics=False)
    made.device.set_target(0x0102)

    made.device.set_config(4, bytes([0x03, 0x04, 0, 0]))

    assert made.device.get_config(0, 8) == bytes([0x02, 0x01, 0, 0, 0x03, 0x04, 0, 0])
    assert made.recorder.of(ActualWritten) == [ActualWritten(0x0403)]


# --- pages --------------------------------------------------------------------------


@pytest.mark.parametrize("told", [False, True], ids=["untold", "told"])
def test_d04_a_page_is_modified_only_while_it_may_be(told):
    """§5.5.6.2: MAY modify a page after its inflation was seen and before that is
    acknowledged; with MUST_TELL_HOST until its deflation is acknowledged."""
    made = opened(must_tell_host=True)
    accepted(made, MUST_TELL_HOST if told else 0)
    made.forget()

    made.inflate(1)
    assert [entry[0] for entry in made.log] == ["discard", "push", "notify"]

    made.policy.gate = SHUT
    made.inflate(2, 3)
    made.deflate(3)
    made.policy.gate = OPEN
    made.forget()
    made.device.tick()

    assert made.host.discards == ([(2, 1)] if told else [])


def test_d05_a_request_is_acknowledged_with_a_used_length_of_0():
    """§5.5.6: the device acknowledges by using the descriptor; nothing was written.

    Historically some devices put the total length there.
    """
    made = opened()
    memory = made.host.memory
    for index in (0, 1):
        start = (3000 + index) * PAGE
        driver = DriverRing(memory.regions[0].data, 16, ByteOrder.LITTLE, start=start)
        parts = driver.desc, driver.avail, driver.used
        form = Ring(16, *parts, VERSION_1, ByteOrder.LITTLE)
        made.host.queues[index] = open_queue(memory, form)
        address = made.inflateq.place(words(5, 6, 7))
        driver.describe(3, address, 12)
        driver.offer(3)

        made.device.queue_notify(index)

        assert driver.returned() == [(3, 0)]


def test_d06_actual_counts_with_its_most_significant_byte():
    """§5.5.6.2, legacy: SHOULD NOT use actual until the last, most significant byte has
    been written; drivers wrote the least significant one first."""
    made = opened()
    made.write_actual(255)

    for at, byte in enumerate((256).to_bytes(4, "little"), 4):
        assert made.device.query().actual == 255
        made.device.set_config(at, bytes([byte]))

    assert made.device.query().actual == 256
    assert made.recorder.of(ActualWritten) == [ActualWritten(255), ActualWritten(256)]


# --- statistics ---------------------------------------------------------------------


def test_d07_unknown_tags_and_any_order_of_statistics_are_accepted():
    """§5.5.6.3.2: MUST ignore tags that it does not recognize, and MUST accept entries
    in any order."""
    made = accepted(opened(), VERSION_1 | STATS_VQ)
    stats = ((5, 500), (0x7777, 1), (4, 400), (0, 0))

    made.host.queues[STATSQ].offer_bytes(
        b"".join(struct.pack("<HQ", *stat) for stat in stats)
    )
    made.device.queue_notify(STATSQ)

    known = dict(made.device.query().stats.values)
    assert (known[5], known[4], known[0]) == (500, 400, 0)
    assert made.faults == []


@pytest.mark.parametrize("order", ByteOrder)
def test_d08_legacy_statistics_are_native_and_the_first_ones_are_none(order):
    """§5.5.6.3.3, legacy: fields are in the guest's byte order, and all values in the
    first buffer SHOULD be ignored: drivers sent it uninitialized."""
    made = accepted(opened(), STATS_VQ)
    queue, letter = made.host.queues[STATSQ], "<" if order is ByteOrder.LITTLE else ">"
    queue.byte_order = order

    for value in (0xA5A5, 1234):
        queue.offer_bytes(struct.pack(f"{letter}HQ", 4, value))
        made.device.queue_notify(STATSQ)

    assert made.recorder.of(StatsReceived) == [StatsReceived(((4, 1234),))]


# --- free page hinting --------------------------------------------------------------


def test_d09_where_no_hints_are_wanted_the_driver_is_to_stop():
    """§5.5.6.5.2: SHOULD set the command id to STOP whenever it cannot use hints."""
    made = accepted(opened(hinting=True), VERSION_1 | HINT)
    assert command(made) == STOP

    made.device.start_hinting()
    made.device.reset()

    assert command(made) == STOP


def test_d10_no_command_id_is_reused():
    """§5.5.6.5.2: MUST NOT reuse a command id until the driver has sent STOP.

    Ours are never used again, whatever it sends.
    """
    made = accepted(opened(hinting=True), VERSION_1 | HINT)
    given = []
    for answers in ((), (STOP,), (2, STOP), (3,)):
        given.append(made.device.start_hinting())
        hint(made, *answers)
    made.device.reset()
    accepted(made, VERSION_1 | HINT)
    given.append(made.device.start_hinting())

    assert len(set(given)) == len(given)
    assert not {STOP, DONE} & set(given)


def test_d11_pages_of_another_command_are_ignored():
    """§5.5.6.5.2: MUST ignore pages that come with any id but the current one."""
    made = accepted(opened(hinting=True), VERSION_1 | HINT)
    old = made.device.start_hinting()
    new = made.device.start_hinting()

    hint(made, old, first=100)
    hint(made, STOP, first=200)
    hint(made, new, first=300)

    assert hinted(made) == [(new, ((300, 4),))]


def test_d12_no_hinted_page_is_modified_and_done_is_reported():
    """§5.5.6.5.2: MAY modify a hinted page that the guest has not modified since, MUST
    NOT after DONE; MUST report DONE when hints are no longer needed. Ids 0 and 1 are
    reserved; legacy, the id in a buffer is in the guest's byte order.

    The device cannot know what the guest has modified, so that it modifies none.
    """
    made = accepted(opened(hinting=True, must_tell_host=True), HINT | MUST_TELL_HOST)
    made.host.queues[HINTQ].byte_order = ByteOrder.BIG
    given = made.device.start_hinting()

    hint(made, given, order=">")
    made.device.tick()
    made.device.stop_hinting()
    made.device.tick()

    assert hinted(made) == [(given, ((100, 4),))]
    assert command(made) == DONE
    assert given > DONE
    assert made.host.discards == []


# --- page poison and free page reporting --------------------------------------------


@pytest.mark.parametrize("poison", [0, 0xAAAAAAAA])
def test_d13_poison_is_a_hint_and_no_more_to_the_balloon(poison):
    """§5.5.6.6.2: MAY use poison_val as a hint to guest behaviour.

    The driver fills a page itself when it takes it back, so that pages of the balloon
    are given back whatever they are filled with.
    """
    made = accepted(opened(page_poison=True), VERSION_1 | POISON, ready=False)
    made.device.set_config(12, words(poison))
    made.device.driver_ready()

    made.inflate(*range(10))

    assert made.host.discards == [(0, 10)]
    assert made.device.get_config(12, 4) == words(poison)


@pytest.mark.parametrize(
    ("features", "poison", "given_back"),
    [
        (0, 0, True),
        (0, 0xAAAAAAAA, True),
        (POISON, 0, True),
        (POISON, 1, False),
        (POISON, 0xAA000000, False),
    ],
)
def test_d14_a_reported_page_becomes_nothing_but_its_poison(
    features, poison, given_back
):
    """§5.5.6.7.2: without PAGE_POISON MAY modify a reported page before it is
    acknowledged; with it, MUST NOT change its content to anything but poison_val.

    A page that is given back reads as zeros.
    """
    made = opened(reporting=True, page_poison=True)
    accepted(made, VERSION_1 | REPORTING | STATS_VQ | features, ready=False)
    made.device.set_config(12, words(poison))
    made.device.driver_ready()
    made.forget()

    queue = made.host.queues[REPORTQ]
    head = queue.offer_chain(writable=[(100 * PAGE, 50 * PAGE)])
    made.device.queue_notify(REPORTQ)

    order = [entry[0] for entry in made.log]
    assert order == [*(["discard"] if given_back else []), "push", "notify"]
    assert queue.returned == [head]
