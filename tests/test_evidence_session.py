"""Elimination: what each event rules out, and above all what it does not."""

from __future__ import annotations

import pytest
from evidence_model import INDIRECT, VERSION_1, swap
from evidence_sessions import (
    BIG_4K,
    FACTS,
    GIB,
    HIGH,
    RIGHT,
    STALE,
    begun,
    names,
    only_4k,
    pages,
    right_pages,
    stale,
    whole,
)
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.events import ByteOrder, Evidence, GuestFacts, MemoryRange
from balloon_plugin.policies.evidence.drivers import kinds
from balloon_plugin.policies.evidence.session import (
    MAX_EVIDENCE,
    MAX_READS,
    MAX_TAKEN,
    MOST,
    Session,
)


def is_explained(session, count, first=HIGH):
    session.inflate(pages(count, first))
    return bool(session.alive)


# --- how much is taken for a target -------------------------------------------------


@pytest.mark.parametrize("target", [1, 16, 33, 1000])
def test_a_driver_may_take_less_or_all_of_its_target_and_no_more(target):
    assert is_explained(only_4k(target), target)
    assert is_explained(only_4k(target), target - 1 or 1)
    # Two more: one page alone might take the place of another.
    assert not is_explained(only_4k(target), target + 2)


def test_the_number_of_pages_gives_the_guests_page_away():
    for page, taken in ((1, 33), (2, 34), (4, 36), (8, 40), (16, 48), (256, 256)):
        session = begun(33)

        session.inflate(pages(taken))

        assert page in right_pages(session)
        assert all(taken <= -(-33 // p) * p for p in right_pages(session))


def test_a_first_batch_of_256_is_of_a_driver_that_reads_its_target_wrong():
    session = begun(33)

    session.inflate(pages(256, HIGH + 1))

    assert names(session) == {BIG_4K}
    assert session.evidence[-1] == Evidence(
        "256 entries for a target of 33",
        f"Only {BIG_4K} with pages of 4 KiB would do this.",
    )


def test_a_driver_that_reads_its_target_wrong_keeps_to_what_it_reads():
    session = begun(33)
    session.inflate(pages(256, HIGH + 1))
    session.read(swap(256))

    session.inflate(pages(5, HIGH + 500))

    assert session.entries < swap(256)
    assert not session.alive


def test_what_a_driver_took_counts_over_its_buffers():
    session = only_4k(33)

    assert is_explained(session, 20)
    assert is_explained(session, 13, HIGH + 20)
    assert session.entries == 33
    assert not is_explained(session, 2, HIGH + 33)


def test_a_driver_that_never_deflates_takes_a_smaller_target_for_a_large_one():
    session = begun(33, features=0)
    session.inflate(pages(33))
    session.read(1)

    session.inflate(pages(256, HIGH + 33))

    assert names(session) == {
        "Linux 2.6.25",
        "Linux 2.6.26, big-endian",
        BIG_4K,
    }


# --- which target it may have in mind -----------------------------------------------


def test_the_target_may_have_changed_since_the_driver_read_it():
    session = only_4k(1000, 5)

    assert is_explained(session, 256)


def test_whoever_filled_a_buffer_reads_its_target_again():
    session = only_4k(1000, 5)
    assert is_explained(session, 256)

    assert not is_explained(session, 256, HIGH + 256)


def test_a_driver_that_is_not_seen_to_read_again_goes_on_to_its_target():
    session = only_4k(600)

    assert is_explained(session, 256)
    assert is_explained(session, 256, HIGH + 256)


def test_moving_a_page_does_not_make_the_worker_forget_its_target():
    session = only_4k(1000)
    session.inflate(pages(256))
    session.read(1000)
    session.inflate(pages(1, HIGH + 900))
    session.deflate(pages(1))
    session.read(5)  # by somebody else

    assert is_explained(session, 256, HIGH + 256)


def test_moving_a_page_does_not_make_the_worker_forget_an_earlier_one():
    session = only_4k(1000)
    session.inflate(pages(256))
    session.read(1000)
    session.read(5)  # by somebody else
    session.inflate(pages(1, HIGH + 900))
    session.deflate(pages(1))

    assert is_explained(session, 256, HIGH + 256)


def test_giving_back_pages_does_not_make_the_worker_forget_its_target():
    session = only_4k(1000)
    session.inflate(pages(100))
    session.read(1000)
    session.read(5)
    session.deflate(pages(100))

    assert is_explained(session, 256, HIGH + 256)


def test_a_driver_may_read_its_target_as_often_as_it_likes():
    session = only_4k(33)
    for _ in range(100):
        session.read(33)
    session.read(1000)

    assert is_explained(session, 256)


def test_the_smallest_and_the_largest_target_are_remembered_longest():
    between = range(100, 100 + MAX_READS)

    session = begun(0, MOST, *between)

    assert len(session.reads) == MAX_READS
    assert {0, MOST, between[-1]} <= session.reads.keys()


@given(st.lists(st.integers(0, MOST), min_size=1, max_size=60))
def test_of_many_targets_those_that_allow_most_are_remembered(targets):
    session = begun(*targets)

    assert len(session.reads) <= MAX_READS
    assert session.latest == targets[-1]
    for extreme in (min, max):
        assert extreme(targets) in session.reads
        by_swapped = extreme(swap(target) for target in targets)
        assert by_swapped in {swap(target) for target in session.reads}


@pytest.mark.parametrize(
    ("old", "new", "taken", "explained"),
    [
        # byte by byte, the first of the old target and the rest of the new
        (255, 256, 511, True),
        (255, 256, 513, False),
        (0x1FF, 0x10000, 0x101FF, True),
        (0xFFFF, 0x10000, 0x1FFFF, True),
        (256, 255, 256, True),
        (256, 255, 258, False),
    ],
)
def test_a_target_that_changes_under_a_reader_is_a_mixture(old, new, taken, explained):
    session = only_4k(old, new)

    session.entries = taken - 2
    session.inflate(pages(2))

    assert bool(session.alive) is explained


def test_a_page_is_oscillated_over_a_target_only_so_often():
    # Drivers to 6.6 with 8 KiB pages, shown 33 as if it had pages of 4 KiB.
    session = Session(FACTS)
    session.accept(INDIRECT)
    for turn in range(3):
        session.read(33)
        session.inflate(pages(34) if turn == 0 else pages(2))
        session.read(33)
        session.deflate(pages(2))

    assert 1 not in right_pages(session)
    assert 2 in right_pages(session)


# --- pages that are moved (balloon compaction) --------------------------------------


def test_a_page_may_take_the_place_of_another_at_any_time():
    session = only_4k(33)
    session.inflate(pages(33))

    for turn in range(50):
        session.inflate(pages(1, HIGH + 100 + turn))
        session.deflate(pages(1, HIGH + (turn if turn < 33 else turn + 67)))

    assert names(session) == {RIGHT}
    assert session.entries == 33


def test_a_page_may_be_moved_while_the_balloon_is_above_its_target():
    session = only_4k(1000)
    session.inflate(pages(1000))
    session.read(5)
    session.inflate(pages(1, HIGH + 2000))
    session.deflate(pages(1))

    assert names(session) == {RIGHT}


def test_but_not_two_before_one_is_out():
    session = only_4k(33)
    session.inflate(pages(33))
    session.inflate(pages(1, HIGH + 100))
    assert session.alive

    session.inflate(pages(1, HIGH + 101))

    assert not session.alive


def test_a_page_taken_for_the_target_is_not_yet_one_moved():
    session = only_4k(33)
    session.inflate(pages(32))
    session.inflate(pages(1, HIGH + 32))

    assert is_explained(session, 1, HIGH + 100)


def test_drivers_that_move_no_pages_stop_at_their_target():
    session = begun(33, features=0)
    session.inflate(pages(33))
    stops = {"Linux 2.6.25", "viomb of OpenBSD or NetBSD, big-endian"}
    assert stops < names(session)

    session.inflate(pages(1, HIGH + 100))

    assert names(session) == {RIGHT, BIG_4K, "Linux 2.6.26, big-endian"}


def test_whoever_never_deflates_stops_at_its_target_too():
    session = begun(33, features=0)
    session.inflate(pages(33))

    session.inflate(pages(256, HIGH + 100))

    assert names(session) == {BIG_4K, "Linux 2.6.26, big-endian"}


def test_old_drivers_move_no_pages():
    session = begun(33)
    session.inflate(pages(33))
    assert BIG_4K in names(session)
    session.read(swap(33))
    session.inflate(pages(1, HIGH + 40))

    assert RIGHT in names(session)
    session.deflate(pages(1, HIGH + 40))
    session.read(1)
    session.read(swap(1))
    assert not any(kind.compacts for kind in kinds(FACTS, None) if kind.name == BIG_4K)


# --- page numbers in and out --------------------------------------------------------


def test_a_number_that_is_in_the_balloon_does_not_come_again():
    session = only_4k(33)
    session.inflate(pages(10))

    assert not is_explained(session, 10, HIGH + 9)


def test_a_number_that_came_back_may():
    session = only_4k(33)
    session.inflate(pages(10))
    session.deflate(pages(5))
    session.inflate(pages(5))

    assert names(session) == {RIGHT}


def test_what_was_never_taken_is_not_given_back():
    session = only_4k(33)
    session.inflate(pages(10))

    session.deflate(pages(2, HIGH + 9))

    assert not session.alive
    assert session.evidence[-1].event == "2 entries given back, some never taken"


def test_the_wrong_shift_has_a_number_for_many_pages():
    session = begun(33, facts=GuestFacts(FACTS.ram, page_size=65536))
    session.inflate((0x30,) * 16 + (0x31,) * 16)
    session.deflate((0x30,) * 16)
    session.deflate((0x30,))

    assert names(session) == {
        "Linux 2.6.29 to 3.3",
        "Linux 2.6.29 to 3.3, big-endian",
    }


def test_of_a_large_balloon_the_numbers_are_not_remembered():
    session = only_4k(MOST)
    session.inflate(pages(MAX_TAKEN, 0))
    assert session.tracked

    session.inflate(pages(2, MAX_TAKEN))

    assert not session.tracked
    assert session.taken == set()
    session.deflate(pages(2, HIGH + 9))
    session.inflate(pages(2))
    session.inflate(pages(2))
    assert names(session) == {RIGHT}
    assert session.taken == set()


def test_once_a_driver_is_trusted_neither_are_they():
    session = only_4k(33)
    session.inflate(pages(33))

    session.trust(session.alive[:1])

    assert not session.tracked
    assert session.taken == set()
    session.inflate(pages(1))
    assert session.taken == set()


def test_odd_entries_are_no_slots_of_eight_bytes():
    session = begun(33)

    session.inflate((HIGH, 0, HIGH + 1, 0))
    assert "Windows, 64-bit" in names(session)
    session.inflate((HIGH + 2, 0, HIGH + 3))

    assert "Windows, 64-bit" not in names(session)


def test_ram_may_grow():
    session = only_4k(33)
    session.describe(GuestFacts((MemoryRange(0, 2 * GIB),), ByteOrder.LITTLE, 4096))

    assert is_explained(session, 5, 0x50000)
    assert not is_explained(session, 5, 0x80000)


# --- where its queues lie -----------------------------------------------------------


def guest_pages(session):
    return {kind.page for kind in session.alive if kind.counts_guest_pages}


def test_a_queue_on_no_larger_page_rules_out_old_drivers_with_those():
    session = begun(features=0)
    assert guest_pages(session) == {4, 16}
    session.place(0, 0x30000)
    assert guest_pages(session) == {4, 16}
    session.place(1, 0x34000)
    assert guest_pages(session) == {4}
    assert session.evidence[-1].event == "queue 1 is at 0x34000"

    session.place(0, 0x31000)

    assert guest_pages(session) == set()
    # Drivers since 3.4 may put theirs anywhere.
    assert right_pages(session) == {1, 2, 4, 8, 16, 32, 64, 256}


def test_where_a_queue_lies_is_not_forgotten_when_the_host_says_more():
    session = begun(features=0)
    session.place(0, 0x31000)

    session.describe(GuestFacts(FACTS.ram, ByteOrder.LITTLE))
    session.accept(0)

    assert guest_pages(session) == set()
    assert guest_pages(Session(FACTS, 0, places=0x31000)) == set()


# --- buffers that are always sent whole ---------------------------------------------


def test_of_a_whole_buffer_the_new_entries_count():
    session, _ = stale()

    assert session.count == 33
    assert session.entries == 33
    assert session.taken == set(pages(33))


def test_its_rest_is_that_of_the_buffer_before_in_either_direction():
    session, buffer = stale()
    session.read(1)
    buffer = pages(32) + buffer[32:]
    session.deflate(buffer)
    assert session.count == 32
    assert session.entries == 1
    session.read(101)
    buffer = pages(100, HIGH + 900) + buffer[100:]

    session.inflate(buffer)

    assert names(session) == {STALE}
    assert session.count == 100
    assert session.entries == 101


def test_of_a_buffer_given_back_below_its_target_nothing_counts():
    session, buffer = stale()
    session.read(100)

    session.deflate(buffer)

    assert session.entries == 33


@pytest.mark.parametrize(
    ("entries", "explained"),
    [
        (whole(pages(33)), True),
        # another rest, or none
        (pages(33) + (7,) * 223, False),
        (pages(33), False),
        (whole(pages(32)), True),  # page 0 may be the last
        (whole(pages(34)), False),
        # all of it is new
        (pages(256), False),
        # a number twice among the new ones
        (whole(pages(32), (HIGH,)), False),
    ],
)
def test_a_whole_buffer_has_nothing_new_but_what_is_wanted(entries, explained):
    session = begun(33, features=0)

    session.inflate(entries)

    assert (STALE in names(session)) is explained


def test_nor_does_one_come_that_has_nothing_new():
    session, buffer = stale()

    session.inflate(buffer)

    assert session.lead is None
    assert session.count is None


def test_a_whole_buffer_of_new_entries_is_a_right_drivers_too():
    session = begun(256, features=0)

    session.inflate(pages(256, HIGH + 1))

    assert names(session) >= {RIGHT, STALE}
    assert session.count is None
    assert session.entries == 256


def test_the_other_drivers_are_not_looked_at_by_what_is_new():
    session = only_4k(33)

    session.inflate(pages(20))
    session.deflate(pages(20))

    assert session.count is None
    assert session.buffer == (0,) * 256


# --- actual -------------------------------------------------------------------------


def test_the_size_is_what_was_seen_unless_nothing_explains_that():
    session = only_4k(33)
    session.inflate(pages(33))
    session.write(7)
    assert session.size == 33

    session.inflate((1, 1))
    assert session.lead is None
    assert session.size == 35
    session.write(7)

    assert session.size == 7


def test_of_one_that_was_never_known_the_entries_are_the_size():
    session = begun(33)
    session.alive = ()

    session.inflate(pages(5))

    assert session.size == 5
    session.write(swap(5))
    assert session.size == swap(5)


def test_it_is_read_in_the_byte_order_of_what_it_was_taken_for():
    session = begun(33)
    session.inflate(pages(33))
    session.write(swap(33))
    session.inflate((1, 1))
    assert session.last.swaps_actual

    session.write(swap(40))

    assert session.size == 40


def test_only_what_some_kind_would_write_says_anything():
    session = begun(33)
    session.inflate(pages(33))
    before = session.alive

    for old in (0, 16, 34, 256, MOST):
        session.write(old)

        assert session.alive == before
        assert session.actual == old


def test_actual_in_the_other_byte_order_gives_its_writer_away():
    session = begun(33)
    session.inflate(pages(33))

    session.write(swap(33))

    assert names(session) == {"viomb of OpenBSD or NetBSD, big-endian"}
    assert session.evidence[-1].event == f"actual = {swap(33)}"


def test_what_was_written_holds_over_buffers():
    session = begun(33)
    session.inflate(pages(33))
    session.write(33)
    session.inflate(pages(1, HIGH + 90))
    session.deflate(pages(1))

    assert session.agrees(session.lead)


def test_a_kind_that_never_writes_agrees_to_nothing():
    session = begun(33, features=VERSION_1 | INDIRECT)
    macos = next(kind for kind in session.alive if not kind.writes_actual)

    session.write(0)

    assert not session.agrees(macos)
    assert macos not in session.alive


# --- the rest -----------------------------------------------------------------------


def test_the_last_kind_is_remembered_when_none_is_left():
    session = only_4k(33)
    [last] = session.alive

    session.inflate((1, 1))

    assert session.lead is None
    assert session.last is last
    assert session.evidence[-1].shows == "No driver that is known would do this."


def test_numbers_stay_in_what_the_device_can_show():
    session = only_4k(33)
    session.entries = MOST - 1
    session.inflate(pages(10))
    assert session.entries == MOST

    session.entries = 1
    session.deflate(pages(10))
    assert session.entries == 0


def test_evidence_is_kept_once_at_its_last_place_and_not_for_ever():
    session = Session(FACTS)
    for number in range(MAX_EVIDENCE * 2):
        session.note(f"event {number}", "Nothing.")
    session.note("event 0", "Nothing.")

    assert len(session.evidence) == MAX_EVIDENCE
    assert session.evidence[-1] == Evidence("event 0", "Nothing.")
    assert session.evidence[0] == Evidence("event 1", "Nothing.")


@pytest.mark.parametrize(
    ("entries", "shows"),
    [
        (pages(33), "Rules out Linux 3.19 or 4.0"),
        ((HIGH, HIGH + 1), "Rules out "),
        ((HIGH + 1,), "Rules out "),
    ],
)
def test_evidence_is_readable(entries, shows):
    session = begun(33, features=VERSION_1)
    session.inflate(entries)

    for one in session.evidence:
        assert 0 < len(one.event) < 60
        assert 0 < len(one.shows) < 200
        assert one.shows[0].isupper()
        assert one.shows.endswith(".")
    assert session.evidence[-1].shows.startswith(shows)


def test_evidence_counts_what_it_does_not_name():
    session = begun(33, features=0)
    session.inflate(pages(256, HIGH + 1))

    [evidence] = session.evidence[1:]
    named, more = evidence.shows.rsplit("; and ", 1)
    gone = names(begun(33, features=0)) - names(session)
    assert named.count(";") == 2
    assert more == f"{len(gone) - 3} more."


def test_evidence_names_the_sizes_that_are_left():
    facts = GuestFacts(FACTS.ram, ByteOrder.LITTLE)
    session = begun(33, features=VERSION_1, facts=facts)
    session.alive = tuple(kind for kind in session.alive if not kind.defects)

    session.inflate(pages(4))
    assert session.evidence[-1].shows == "The guest's pages are of 4 or 8 or 16 KiB."

    session.inflate(pages(1, HIGH + 4))
    assert session.evidence[-1].shows == (
        "Only a driver that is right with pages of 4 KiB would do this."
    )


def test_what_a_driver_said_of_its_balloon_does_not_outlast_a_buffer():
    session = only_4k(33)
    session.inflate(pages(33))
    session.write(33)
    assert session.stated

    session.deflate(pages(1))

    assert not session.stated
    assert session.yielded
