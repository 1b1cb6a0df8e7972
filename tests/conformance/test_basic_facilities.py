"""What every virtio device owes its driver, whatever it is: D15 to D19.

One test, or a few, for each requirement, named after it. The sections are those of
VIRTIO 1.3; the numbers are those of the table of peers, and in the code.
"""

from __future__ import annotations

import itertools
import struct

import pytest
from raw_guest import (
    EVENT_IDX,
    FIRST_PAGE,
    INDIRECT_DESC,
    PACKED,
    VERSION_1,
    RawGuest,
)
from ring import INDIRECT, WRITE

from balloon_plugin.events import ByteOrder
from balloon_plugin.hosts.vhost_user.requests import TRANSPORT
from balloon_plugin.policies.feature_bit import FeatureBitPolicy

FORMATS = [
    pytest.param(VERSION_1, id="split"),
    pytest.param(VERSION_1 | EVENT_IDX, id="split, event_idx"),
    pytest.param(VERSION_1 | PACKED, id="packed"),
    pytest.param(VERSION_1 | PACKED | EVENT_IDX, id="packed, event_idx"),
]
EVERYTHING = {
    "statistics": True,
    "deflate_on_oom": True,
    "must_tell_host": True,
    "page_poison": True,
    "reporting": True,
    "hinting": True,
}


@pytest.fixture(params=FORMATS)
def guest(request):
    with RawGuest(request.param | INDIRECT_DESC) as guest:
        yield guest


# --- D15: device status (§2.1.2) ----------------------------------------------------


def test_d15_no_buffer_is_consumed_before_driver_ok(guest):
    """§2.1.2, MUST NOT consume buffers before DRIVER_OK."""
    guest.accept().start_queues()
    guest.offer((guest.place(guest.pfns(FIRST_PAGE)), 4, 0))
    before = guest.kick()
    interrupts = guest.host.queue_interrupts

    guest.host.device_ready()

    assert before == []
    assert interrupts == 0
    assert guest.rings[0].returned() == [(0, 0)]
    assert guest.status.ballooned == 1


def test_d15_a_device_leaves_early_kicks_alone_on_any_host(guest):
    """The same where the host lets them through."""
    guest.accept().start_queues()
    guest.offer((guest.place(guest.pfns(FIRST_PAGE)), 4, 0))

    assert guest.device.queue_notify(0) is False
    assert guest.rings[0].returned() == []


def test_d15_no_notification_is_sent_before_driver_ok(guest):
    """§2.1.2; a driver that has read its target is told of another after DRIVER_OK."""
    guest.accept()
    guest.host.config_read(0, 4)
    guest.device.set_target(100)
    before = guest.host.config_interrupts

    guest.start_queues()
    guest.host.device_ready()

    assert before == 0
    assert guest.host.config_interrupts == 1


def test_d15_a_lost_device_says_so_and_notifies(guest):
    """§2.1.2, SHOULD set NEEDS_RESET, and then MUST send a config notification."""
    guest.started()
    before = guest.host.config_interrupts
    # Twice the same buffer, in either format.
    buffer = guest.place(guest.pfns(FIRST_PAGE)), 4, 0
    guest.offer(buffer)
    guest.offer(buffer)
    guest.kick()

    assert guest.host.lost
    assert guest.host.config_interrupts == before + 1
    assert guest.faults == [guest.host.queue(0).broken]


# --- D16: feature bits (§2.2.2) -----------------------------------------------------

IN_THE_SPECIFICATION = {
    *range(6),  # §5.5.3
    *(24, 27, 28, 29),  # §6, §6.3
    *range(32, 41),  # §6
}


def bits(features):
    return {bit for bit in range(128) if features >> bit & 1}


@pytest.mark.parametrize("policy", ["none", "probe", "evidence"])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["default", "everything"])
def test_d16_no_bit_is_offered_that_is_not_in_the_specification(policy, options):
    """§2.2.2, MUST NOT offer a feature that is not described there."""
    with RawGuest(policy=policy, **options) as guest:
        offered = guest.host.offered_features()

    assert bits(offered) <= IN_THE_SPECIFICATION
    # Bits 26 and 30 are the protocol's own: no driver sees them (vhost-user.rst).
    assert bits(TRANSPORT) - {26, 30} <= IN_THE_SPECIFICATION


def test_d16_the_one_that_does_otherwise_has_to_be_asked_to():
    """ENDIAN_SAFE was never allocated; docs/policies.md calls it non-conformant."""
    with RawGuest() as usual, RawGuest(policy=FeatureBitPolicy()) as other:
        surplus = bits(other.device.get_features()) - bits(usual.device.get_features())

    assert len(surplus) == 1
    assert not surplus & IN_THE_SPECIFICATION


def subsets(features):
    """Return every choice of some of these bits."""
    masks = [1 << bit for bit in bits(features)]
    for count in range(len(masks) + 1):
        yield from map(sum, itertools.combinations(masks, count))


@pytest.mark.slow
def test_d16_any_subset_is_accepted():
    """§2.2.2, SHOULD accept any valid subset of features that the driver accepts."""
    offered = make_features(EVERYTHING) | INDIRECT_DESC | EVENT_IDX | PACKED
    modern = [VERSION_1 | subset for subset in subsets(offered)]
    legacy = list(subsets(offered & ~PACKED))

    for accepted in (*modern[::13], *legacy[::7]):
        with RawGuest(accepted, order=ByteOrder.BIG, **EVERYTHING) as guest:
            guest.started()
            assert guest.inflate(FIRST_PAGE), bits(accepted)
            assert guest.status.features == accepted
            assert guest.status.ballooned == 1
            assert not guest.faults


def make_features(options):
    with RawGuest(**options) as guest:
        return guest.device.get_features()


def test_d16_what_was_accepted_once_is_accepted_again(guest):
    """§2.2.2, SHOULD NOT fail re-negotiation of a set that it accepted before."""
    for _ in range(3):
        guest.host.reset()
        guest.rings.clear()
        guest.started()
        assert guest.inflate(FIRST_PAGE)
        assert guest.status.features == guest.features
        assert guest.faults == []


# --- D17: device reset and configuration (§2.4.1, §2.5.2) ---------------------------


def test_d17_after_a_reset_queues_are_left_alone_and_nothing_is_sent(guest):
    """§2.4.1, MUST NOT send notifications or interact with the queues after a reset."""
    guest.started()
    assert guest.inflate(FIRST_PAGE)
    guest.host.reset()
    guest.offer((guest.place(guest.pfns(FIRST_PAGE + 1)), 4, 0))
    before = bytes(guest.host.ram)
    sent = guest.host.config_interrupts, guest.host.queue_interrupts

    guest.device.set_target(500)
    guest.device.tick()
    assert guest.kick() == []

    assert guest.host.ram == before
    assert (guest.host.config_interrupts, guest.host.queue_interrupts) == sent


def test_d17_after_a_reset_the_status_is_0(guest):
    """§2.4.1, MUST reinitialize the status to 0: nothing of the driver is left."""
    guest.started()
    buffer = guest.place(guest.pfns(FIRST_PAGE)), 4, 0
    guest.offer(buffer)
    guest.offer(buffer)
    guest.kick()
    guest.host.reset()

    assert not guest.host.lost
    assert guest.status.features is None
    assert not guest.status.driver
    assert guest.status.ballooned == guest.status.actual == 0


@pytest.mark.parametrize(
    ("options", "poison_val"), [({}, 0), (EVERYTHING, 7)], ids=["default", "everything"]
)
def test_d17_every_field_can_be_read_before_features_ok(options, poison_val):
    """§2.5.2, MUST allow reading any field, those of offered features included."""
    with RawGuest(**options) as guest:
        guest.device.set_target(77)
        guest.host.config_write(4, struct.pack("<I", 5))
        guest.host.config_write(12, struct.pack("<I", 7))
        whole = guest.host.config_read(0, 16)
        fields = [guest.host.config_read(at, 4) for at in (0, 4, 8, 12)]
        single = [guest.host.config_read(at, 1) for at in range(16)]

    assert whole == struct.pack("<IIII", 77, 5, 0, poison_val)
    assert whole == b"".join(fields) == b"".join(single)


def test_d17_each_change_of_the_configuration_is_announced():
    """§2.5: a transport changes its generation count when it is told of a change."""
    with RawGuest(VERSION_1 | 1 << 3, hinting=True) as guest:
        guest.started()
        guest.host.config_read(0, 16)
        changes = []
        for change in (
            lambda: guest.device.set_target(10),
            lambda: guest.device.set_target(20),
            guest.device.start_hinting,
            guest.device.stop_hinting,
        ):
            before = guest.host.config_read(0, 16), guest.host.config_interrupts
            change()
            changed = guest.host.config_read(0, 16) != before[0]
            changes.append((changed, guest.host.config_interrupts > before[1]))

    assert changes == [(True, True)] * 4


# --- D18: virtqueues (§2.7, §2.8) ---------------------------------------------------


def test_d18_nothing_is_written_but_what_is_the_devices():
    """§2.7.5.1, MUST NOT write to a device-readable buffer; nor to descriptors."""
    with RawGuest(VERSION_1 | INDIRECT_DESC | EVENT_IDX) as guest:
        guest.started()
        ring = guest.rings[0]
        at = guest.place(guest.pfns(FIRST_PAGE))
        table = guest.place(ring.entry(at, 4))
        guest.offer((table, 16, INDIRECT))
        before = bytes(guest.host.ram)
        assert guest.kick() == [0]
        after = bytes(guest.host.ram)

    used = slice(ring.used, ring.end)
    assert after[used] != before[used]
    assert after[: used.start] == before[: used.start]
    assert after[used.stop :] == before[used.stop :]


def test_d18_no_device_readable_buffer_is_written_through_a_packed_ring():
    """§2.8.15, MUST NOT; here the descriptor is what says that it was used."""
    with RawGuest(VERSION_1 | INDIRECT_DESC | PACKED) as guest:
        guest.started()
        ring = guest.rings[0]
        at = guest.place(guest.pfns(FIRST_PAGE))
        table = guest.place(ring.entry(at, 4))
        guest.offer((table, 16, INDIRECT))
        before = bytes(guest.host.ram)
        assert guest.kick() == [0]
        after = bytes(guest.host.ram)

    used = slice(ring.desc, ring.desc + 16)
    assert after[used] != before[used]
    assert after[: used.start] == before[: used.start]
    assert after[used.stop :] == before[used.stop :]


def test_d18_the_write_flag_of_an_indirect_descriptor_is_ignored(guest):
    """§2.7.5.3.2, §2.8.7, MUST ignore it in a descriptor that refers to a table."""
    guest.started()
    at = guest.place(guest.pfns(FIRST_PAGE))
    guest.offer((guest.place(guest.rings[0].entry(at, 4)), 16, INDIRECT | WRITE))

    assert guest.kick() == [0]
    assert guest.status.ballooned == 1
    assert guest.faults == []


def test_d18_spurious_kicks_do_no_harm(guest):
    """§2.7.10.2, MUST handle spurious notifications from the driver."""
    guest.started()
    assert guest.inflate(FIRST_PAGE)
    kick_all(guest)  # with EVENT_IDX each queue asks for its next kick
    before = bytes(guest.host.ram)
    interrupts = guest.host.queue_interrupts
    for _ in range(3):
        kick_all(guest)

    assert guest.host.ram == before
    assert guest.host.queue_interrupts == interrupts
    assert guest.faults == []


def kick_all(guest):
    for queue in (0, 1, 2, 3, 4, 99):
        guest.host.kick(queue)


def test_d18_a_used_length_is_there_before_what_publishes_it(guest, monkeypatch):
    """§2.7.8.2, MUST set len prior to updating the used idx; flags, in §2.8.2."""
    guest.started()
    queue, ring = guest.host.queue(0), guest.rings[0]
    at = ring.desc + 8 if guest.features & PACKED else ring.used + 8
    words = queue._marks if guest.features & PACKED else queue._used
    store, seen = words.store, []
    ring.put("I", at, 0xFFFFFFFF)

    def watched(place, word):
        seen.append(ring.get("I", at))
        store(place, word)

    guest.offer((guest.place(guest.pfns(FIRST_PAGE)), 4, 0))
    (chain,) = queue.pop(1)
    monkeypatch.setattr(words, "store", watched)
    queue.push([chain])

    assert seen == [(0,)]


# --- D19: legacy interface (§3.1.2) -------------------------------------------------


@pytest.mark.parametrize("order", ByteOrder)
def test_d19_a_legacy_driver_may_use_the_device_before_driver_ok(order):
    """§3.1.2, MUST support the driver using the device before DRIVER_OK is set."""
    with RawGuest(0, order=order) as guest:
        guest.accept().start_queues()

        assert guest.inflate(FIRST_PAGE)
        assert guest.host.queue_interrupts == 1
        assert guest.status.ballooned == 1


def test_d19_a_legacy_driver_may_use_it_before_it_writes_its_features():
    """§3.1.2: legacy drivers often used it before they even wrote the feature bits."""
    with RawGuest(0) as guest:
        guest.start_queues()

        assert guest.inflate(FIRST_PAGE)
        assert guest.status.ballooned == 1


def test_d19_a_legacy_driver_may_write_configuration_before_it_reads_features():
    """§3.1.2, MUST support the driver writing configuration before it does."""
    with RawGuest(0) as guest:
        guest.host.config_write(4, (12).to_bytes(4, "little"))
        guest.started()

        assert guest.status.actual == 12
