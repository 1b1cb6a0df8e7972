"""Free page hinting: ids that are never used twice, and pages for observers."""

from __future__ import annotations

import json
import struct

import pytest
from fakes import BUFFERS, OUTSIDE, PAGE, STATS_VQ, FakeHost, opened, rig
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.duties import hinting
from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder, PagesHinted
from balloon_plugin.status import Hints

HINT = 1 << 3
VERSION_1 = 1 << 32
HINTQ = 3
STOP, DONE = 0, 1


def started(features=VERSION_1, host=None):
    """Make a device whose driver hints."""
    made = opened(host, hinting=True)
    made.device.set_features(features | HINT | STATS_VQ)
    made.device.driver_ready()
    return made


def command(made):
    """Return what the driver reads in free_page_hint_cmd_id."""
    return int.from_bytes(made.device.get_config(8, 4), "little")


def say(made, number, order="<"):
    """Let the driver send a command's id."""
    return made.host.queues[HINTQ].offer_bytes(struct.pack(f"{order}I", number))


def hint(made, *parts):
    """Let the driver send pages, a part for each (first page, pages)."""
    writable = [(first * PAGE, count * PAGE) for first, count in parts]
    return made.host.queues[HINTQ].offer_chain(writable=writable)


def hinted(made):
    return [(event.command, event.runs) for event in made.recorder.of(PagesHinted)]


def test_before_it_is_asked_the_driver_is_to_stop():
    assert command(started()) == STOP


def test_a_command_is_announced():
    made = started()
    made.forget()

    given = made.device.start_hinting()

    assert command(made) == given == 2
    assert made.log == [("config",)]


def test_hints_are_told_to_observers_and_not_to_the_policy():
    made = started()
    given = made.device.start_hinting()

    heads = [say(made, given), hint(made, (100, 4)), hint(made, (200, 1)), say(made, 0)]
    made.device.queue_notify(HINTQ)

    assert hinted(made) == [(given, ((100, 4), (200, 1)))]
    assert not any(isinstance(event, PagesHinted) for event in made.policy.seen)
    assert made.host.queues[HINTQ].returned == heads
    assert made.device.query().hints == Hints(given, STOP, 5)


def test_no_hinted_page_is_given_back():
    made = started()
    say(made, made.device.start_hinting())

    hint(made, (100, 1000))
    made.device.queue_notify(HINTQ)
    made.device.tick()
    made.device.stop_hinting()

    assert made.host.discards == []
    assert made.device.query().ballooned == 0


def test_pages_in_one_chain_with_their_command_count():
    made = started()
    number = struct.pack("<I", made.device.start_hinting())
    queue = made.host.queues[HINTQ]

    queue.offer_chain([(queue.place(number), 4)], [(100 * PAGE, PAGE)])
    made.device.queue_notify(HINTQ)

    assert hinted(made) == [(2, ((100, 1),))]


@pytest.mark.parametrize("wrong", [STOP, DONE, 3, 2**32 - 1])
def test_pages_of_another_command_are_ignored(wrong):
    made = started()
    made.device.start_hinting()

    heads = [say(made, wrong), hint(made, (100, 4))]
    made.device.queue_notify(HINTQ)

    assert hinted(made) == []
    assert made.host.queues[HINTQ].returned == heads


@pytest.mark.parametrize("reserved", [STOP, DONE])
def test_a_reserved_id_brings_no_pages_though_it_is_what_the_driver_reads(reserved):
    made = started()
    if reserved == DONE:
        made.device.start_hinting()
        made.device.stop_hinting()

    say(made, reserved)
    hint(made, (100, 4))
    made.device.queue_notify(HINTQ)

    assert command(made) == reserved
    assert hinted(made) == []


def test_pages_before_any_command_are_ignored():
    made = started()
    made.device.start_hinting()

    hint(made, (100, 4))
    made.device.queue_notify(HINTQ)

    assert hinted(made) == []


def test_pages_of_a_command_that_has_been_replaced_are_ignored():
    made = started()
    first = made.device.start_hinting()
    say(made, first)
    hint(made, (100, 4))
    made.device.queue_notify(HINTQ)

    second = made.device.start_hinting()
    hint(made, (200, 4))
    made.device.queue_notify(HINTQ)
    say(made, second)
    hint(made, (300, 4))
    made.device.queue_notify(HINTQ)

    assert hinted(made) == [(first, ((100, 4),)), (second, ((300, 4),))]
    assert made.device.query().hints.pages == 4


def test_when_it_is_over_the_driver_is_told_that_it_is_done():
    made = started()
    made.device.start_hinting()
    made.forget()

    made.device.stop_hinting()
    made.device.stop_hinting()

    assert command(made) == DONE
    assert made.log == [("config",)]


def test_to_stop_what_was_never_started_does_nothing():
    made = started()
    made.forget()

    made.device.stop_hinting()

    assert command(made) == STOP
    assert made.log == []


def test_no_id_is_ever_used_twice():
    made = started()
    given = []
    for _ in range(3):
        given.append(made.device.start_hinting())
        made.device.stop_hinting()
        made.device.reset()
        made.device.set_features(HINT)
        made.device.driver_ready()
        given.append(made.device.start_hinting())

    assert given == sorted(set(given))
    assert min(given) > DONE


def test_ids_that_are_used_up_do_not_begin_anew(monkeypatch):
    monkeypatch.setattr(hinting, "_FIRST", 2**32 - 2)
    made = started()
    made.device.start_hinting()
    made.device.start_hinting()

    assert made.device.get_config(8, 4) == b"\xff" * 4
    with pytest.raises(HostError, match="make a new device"):
        made.device.start_hinting()


def test_a_reset_ends_it():
    made = started()
    say(made, made.device.start_hinting())
    made.device.queue_notify(HINTQ)

    made.device.reset()

    assert command(made) == STOP
    assert made.device.query().hints == Hints(STOP, None, 0)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda made: made,
        lambda made: made.device.set_features(HINT),
        lambda made: made.device.driver_ready(),
    ],
    ids=["no driver", "not ready", "does not know it"],
)
def test_without_a_driver_that_hints_it_cannot_be_started(prepare):
    made = rig(hinting=True)
    prepare(made)

    with pytest.raises(HostError, match="feature hinting"):
        made.device.start_hinting()


@pytest.mark.parametrize("order", [("<", ByteOrder.LITTLE), (">", ByteOrder.BIG)])
def test_an_id_is_in_the_order_of_the_queue_and_config_is_little_endian(order):
    letter, made = order[0], started(features=0)
    made.host.queues[HINTQ].byte_order = order[1]
    given = made.device.start_hinting()

    say(made, given, letter)
    hint(made, (100, 1))
    made.device.queue_notify(HINTQ)

    assert command(made) == given
    assert len(hinted(made)) == 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_an_id_that_is_too_short_is_a_fault_and_changes_nothing(size):
    made = started()
    say(made, made.device.start_hinting())

    head = made.host.queues[HINTQ].offer_bytes(bytes(size))
    hint(made, (100, 1))
    made.device.queue_notify(HINTQ)

    assert f"{size} bytes" in made.faults[0]
    assert head in made.host.queues[HINTQ].returned
    assert len(hinted(made)) == 1


def test_a_broken_chain_is_a_fault_and_comes_back():
    made = started()
    queue = made.host.queues[HINTQ]

    head = queue.offer_chain(fault="it has a loop")
    made.device.queue_notify(HINTQ)

    assert made.faults == ["it has a loop"]
    assert queue.returned == [head]


def test_pages_outside_ram_and_parts_of_pages_are_no_hints():
    made = started()
    say(made, made.device.start_hinting())

    made.host.queues[HINTQ].offer_chain(
        writable=[(100 * PAGE - 1, PAGE + 2), (OUTSIDE - PAGE, 2 * PAGE), (0, 5)]
    )
    made.device.queue_notify(HINTQ)

    assert hinted(made) == [(2, ((100, 1), (OUTSIDE // PAGE - 1, 1)))]
    assert "1 hinted pages" in made.faults[0]


def test_descriptors_that_are_not_read_are_work_too():
    made = started()
    queue = made.host.queues[HINTQ]
    heads = [queue.offer_chain(readable=[(BUFFERS, 0)] * 256) for _ in range(100)]

    turns = 1
    while made.device.queue_notify(HINTQ):
        turns += 1

    assert turns > 2
    assert queue.returned == heads


def test_a_kick_does_a_bounded_amount_of_work():
    made = started()
    queue = made.host.queues[HINTQ]
    heads = [queue.offer_chain(writable=[(BUFFERS, PAGE)]) for _ in range(3000)]

    turns = 1
    while made.device.queue_notify(HINTQ):
        turns += 1

    assert turns > 2
    assert queue.returned == heads


def test_a_restored_device_goes_on_and_knows_the_ids():
    made = started()
    given = made.device.start_hinting()
    say(made, given)
    hint(made, (100, 4))
    made.device.queue_notify(HINTQ)
    state = json.loads(json.dumps(made.device.save()))

    other = opened(FakeHost(), hinting=True)
    other.device.load(state)
    hint(other, (200, 4))
    other.device.queue_notify(HINTQ)

    assert command(other) == given
    assert hinted(other) == [(given, ((200, 4),))]
    assert other.device.query().hints == Hints(given, given, 8)
    assert other.device.start_hinting() == given + 1


@given(st.lists(st.sampled_from(["start", "stop", "reset"]), max_size=20))
def test_ids_rise_whatever_happens(doings):
    made, given = started(), [DONE]

    for doing in doings:
        if doing == "start":
            given.append(made.device.start_hinting())
        elif doing == "stop":
            made.device.stop_hinting()
        else:
            made.device.reset()
            made.device.set_features(HINT)
            made.device.driver_ready()

    assert given == sorted(set(given))
