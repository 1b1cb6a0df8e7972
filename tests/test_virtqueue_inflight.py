"""The record of buffers in flight: whoever goes on after a death loses none."""

from __future__ import annotations

import itertools
import struct
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from examples import times
from hypothesis import assume, given
from hypothesis import strategies as st
from inflight_text import TextPacked, TextSplit
from ring import AVAIL, NEXT, USED, DriverRing, PackedDriverRing

from balloon_plugin import virtqueue
from balloon_plugin.events import ByteOrder
from balloon_plugin.memory import GuestMemory, Region
from balloon_plugin.virtqueue import Ring, find_base, inflight_size, open_queue

RAM, BUFFERS, SIZE = 0x10000, 0x18000, 8
INDIRECT_DESC, PACKED = 1 << 28, 1 << 34
BEGINNING = 0x8000_8000
"""All that a front end knows of a packed queue whose back end died."""


class Split:
    """A driver with a split queue, and all that outlives a back end."""

    text = TextSplit
    features = INDIRECT_DESC
    lists = (1, 1, 1)

    def __init__(self):
        self.ram = bytearray(0x10000)
        self.ring = self.driver_ring()
        self.packed = bool(self.features & PACKED)
        self.region = bytearray(inflight_size(SIZE, packed=self.packed))
        self.memory = GuestMemory([Region(RAM, memoryview(self.ram))])
        self.out = {}
        self.offers = self.returns = 0

    def driver_ring(self):
        return DriverRing(self.ram, SIZE, ByteOrder.LITTLE, base=RAM, start=RAM)

    def offer(self, count):
        """Offer a buffer of so many descriptors, if there is room for it."""
        free = set(range(SIZE)) - set(self.out)
        if sum(len(elements) for elements in self.out.values()) + count > SIZE:
            return
        ident = (min if self.offers % 3 else max)(free)
        at = BUFFERS + 0x100 * (self.offers % 64)
        self.out[ident] = tuple((at + 16 * step, 16) for step in range(count))
        self.offers += 1
        self.put(ident, *[(address, size, 0) for address, size in self.out[ident]])

    def put(self, ident, element):
        self.ring.describe(ident, *element)
        self.ring.offer(ident)

    looks_new = False

    @property
    def base(self):
        """What a front end says of the queue when its back end died."""
        return self.ring.used_idx

    def collect(self):
        """Take back what was returned; each buffer once, or it is none of ours."""
        for ident, _ in self.ring.returned():
            del self.out[ident]
            self.returns += 1

    def described(self):
        ring = self.ring
        return Ring(
            SIZE, ring.desc, ring.avail, ring.used, self.features, ByteOrder.LITTLE
        )

    def ours(self):
        return Ours(self)

    def theirs(self):
        return Theirs(self)


class Packed(Split):
    """The same with a packed queue, and lists."""

    text = TextPacked
    features = PACKED
    lists = (1, 2, 3)
    base = BEGINNING

    def driver_ring(self):
        return PackedDriverRing(self.ram, SIZE, ByteOrder.LITTLE, base=RAM, start=RAM)

    @property
    def looks_new(self):
        """Whether it could be another driver's, which has nothing back yet.

        Lists are marked at one descriptor only, so that a lap may leave no mark. Then
        we refuse: to serve what the driver has back would be worse.
        """
        marks = map(self.ring.flags, range(SIZE))
        return self.returns > 0 and not any(flags & USED for flags in marks)

    def put(self, ident, *elements):
        self.ring.offer(ident, *elements)


class Ours:
    """A back end of ours, which may die at any line."""

    def __init__(self, driver):
        self.driver = driver
        self.region = memoryview(driver.region)
        self.queue = open_queue(
            driver.memory, driver.described(), driver.base, self.region
        )
        assert self.queue.broken is None
        self.held = []

    def take(self, count, moment=None):
        return dies_at(moment, lambda: self._take(count))

    def _take(self, count):
        chains = self.queue.pop(count)
        assert self.queue.broken is None
        for chain in chains:
            assert chain.readable == self.driver.out[chain.head]
        self.held += chains

    def give(self, count, _choice=0, moment=None):
        # Ours are returned in order.
        chains, self.held = self.held[:count], self.held[count:]
        return dies_at(moment, lambda: self.queue.push(chains))

    def gone(self):
        self.queue.release()


class Theirs:
    """A back end as the text has it, which returns buffers in any order."""

    def __init__(self, driver):
        self.back_end = driver.text(driver.region, driver.ring)
        self.held = []

    def take(self, count, moment=None):
        return goes(self._taking(count), moment)

    def _taking(self, count):
        for _ in range(count):
            yield from self.back_end.taking(self.held)

    def give(self, count, choice=0, moment=None):
        batch = [
            self.held.pop(choice % len(self.held))
            for _ in range(min(count, len(self.held)))
        ]
        return goes(self.back_end.giving(batch), moment) if batch else False

    def gone(self):
        pass


class KilledError(BaseException):
    """Stands for SIGKILL: nobody catches it."""


ROOM = str(Path(virtqueue.__file__).parent)


def dies_at(moment, work):
    """Do the work and die before one of its lines; return whether it died."""
    left = moment

    def trace(frame, event, _argument):
        nonlocal left
        if not frame.f_code.co_filename.startswith(ROOM):
            return None
        if event == "line":
            if left == 0:
                raise KilledError
            left -= 1
        return trace

    if moment is None:
        work()
        return False
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KilledError:
        return True
    finally:
        sys.settrace(before)
    return False


def goes(steps, moment):
    """Go so many steps; return whether there were more."""
    return any(step == moment for step, _ in enumerate(steps))


def finish(back_end, driver):
    """Serve all that there is, and see that the driver has everything back."""
    back_end.take(SIZE)
    while back_end.held:
        back_end.give(3, 1)
    driver.collect()
    assert driver.out == {}
    assert driver.returns == driver.offers
    back_end.gone()


formats = pytest.mark.parametrize("driver", [Split, Packed])
successors = pytest.mark.parametrize("successor", ["ours", "theirs"])

# --- one death ----------------------------------------------------------------------


@formats
@successors
def test_whenever_we_die_a_successor_goes_on(driver, successor):
    moments = 0
    for moment in range(2000):
        world = driver()
        for count in driver.lists:
            world.offer(count)
        ours = world.ours()
        if not (died := ours.take(2, moment)):
            moments = moments or moment
            died = ours.give(2, moment=moment - moments)
        ours.gone()
        world.collect()
        world.offer(1)

        finish(getattr(world, successor)(), world)
        if not died:
            break

    assert moment > moments > 10


@formats
@successors
def test_whenever_another_dies_a_successor_goes_on(driver, successor):
    for moment in range(100):
        world = driver()
        for count in driver.lists:
            world.offer(count)
        world.offer(1)
        theirs = world.theirs()
        theirs.take(3)
        died = theirs.give(2, 1, moment)
        world.collect()
        # What was in flight is in the ring no more.
        world.offer(1)
        world.offer(1)

        finish(getattr(world, successor)(), world)
        if not died:
            break

    assert moment > 3


@formats
@successors
def test_a_batch_may_go_once_around_the_ring(driver, successor):
    for moment in range(100):
        world = driver()
        for size in driver.lists * SIZE:
            world.offer(size)
        assert sum(map(len, world.out.values())) == SIZE
        theirs = world.theirs()
        theirs.take(SIZE)
        died = theirs.give(SIZE, 1, moment)
        world.collect()
        world.offer(1)

        finish(getattr(world, successor)(), world)
        if not died:
            break

    assert moment > 3


@formats
@successors
@pytest.mark.parametrize("dying", ["ours", "theirs"])
@pytest.mark.parametrize("laps", range(3))
def test_a_queue_may_have_a_single_entry(driver, dying, successor, laps, monkeypatch):
    monkeypatch.setitem(globals(), "SIZE", 1)
    moments = 0
    for moment in range(300):
        world = driver()
        back_end = getattr(world, dying)()
        for _ in range(laps):
            world.offer(1)
            back_end.take(1)
            back_end.give(1)
            world.collect()
        world.offer(1)
        if not (died := back_end.take(1, moment)):
            moments = moments or moment
            died = back_end.give(1, moment=moment - moments)
        back_end.gone()
        world.collect()
        world.offer(1)

        finish(getattr(world, successor)(), world)
        if not died:
            break

    assert moment > moments > 1


@formats
def test_a_successor_may_die_while_it_returns_too(driver):
    for first, second in itertools.product(range(8), range(0, 80, 2)):
        world = driver()
        for _ in range(5):
            world.offer(1)
        theirs = world.theirs()
        theirs.take(3)
        theirs.give(3, 0, first)
        world.collect()
        ours = world.ours()
        ours.take(2)
        ours.give(2, moment=second)
        ours.gone()
        world.collect()

        finish(world.theirs(), world)


@formats
def test_what_was_taken_first_comes_first(driver):
    world = driver()
    for _ in range(4):
        world.offer(1)
    first, second, third, fourth = world.out
    theirs = world.theirs()
    theirs.take(3)
    assert theirs.held == [first, second, third]
    theirs.give(1, 1)
    world.collect()

    chains = world.ours().queue.pop(8)

    assert [chain.head for chain in chains] == [first, third, fourth]


@formats
def test_no_more_of_it_is_taken_than_is_asked_for(driver):
    world = driver()
    for _ in range(4):
        world.offer(1)
    world.theirs().take(3)
    queue = world.ours().queue

    taken = [queue.pop(1) for _ in range(5)]

    assert [[chain.head for chain in chains] for chains in taken] == [
        *([ident] for ident in world.out),
        [],
    ]


@formats
def test_what_a_successor_takes_comes_after_that(driver):
    world = driver()
    for _ in range(3):
        world.offer(1)
    world.theirs().take(2)
    world.ours().take(3)

    chains = world.ours().queue.pop(8)

    assert [chain.head for chain in chains] == [*world.out]


def test_a_front_end_may_count_what_is_in_flight():
    world = Split()
    for _ in range(3):
        world.offer(1)
    world.theirs().take(2)

    queue = open_queue(world.memory, world.described(), 2, memoryview(world.region))

    assert [chain.head for chain in queue.pop(8)] == [*world.out]


def test_a_record_with_nothing_in_flight_leaves_the_base_as_it_is():
    world = Split()
    for _ in range(3):
        world.offer(1)

    queue = open_queue(world.memory, world.described(), 2, memoryview(world.region))

    assert [chain.head for chain in queue.pop(8)] == [*world.out][2:]


@formats
def test_a_queue_stands_where_its_first_buffer_in_flight_was(driver):
    world = driver()
    for _ in range(3):
        world.offer(1)
    theirs = world.theirs()
    theirs.take(3)
    theirs.give(1, 2)
    place = {Split: 1, Packed: 0x8001_8001}[driver]

    region = memoryview(world.region)

    base = find_base(world.memory, world.described(), world.base, region)

    assert base == place
    queue = world.ours().queue
    queue.pop(8)
    assert queue.base == place
    queue.release()
    assert queue.base == place


@formats
def test_one_who_stops_in_order_leaves_it_on_record(driver):
    world = driver()
    world.offer(1)
    ours = world.ours()
    ours.take(1)
    ours.gone()

    finish(world.theirs(), world)


@formats
def test_a_released_queue_lets_go_of_its_record(driver):
    world = driver()
    region = memoryview(world.region)
    queue = open_queue(world.memory, world.described(), world.base, region)

    queue.release()

    world.region.clear()  # refused as long as somebody looks at it


# --- many deaths --------------------------------------------------------------------

moments = st.none() | st.integers(0, 60)
acts = st.one_of(
    st.tuples(st.just("offer"), st.integers(1, 3)),
    st.tuples(st.just("take"), st.integers(1, 4), moments),
    st.tuples(st.just("give"), st.integers(1, 4), st.integers(0, 7), moments),
)


@formats
@given(
    lives=st.lists(st.tuples(st.booleans(), st.lists(acts, max_size=12)), max_size=8),
    last=st.sampled_from(["ours", "theirs"]),
)
def test_no_buffer_is_lost_or_comes_twice(driver, lives, last):
    world = driver()
    for is_ours, life in lives:
        assume(not is_ours or not world.looks_new)
        back_end = world.ours() if is_ours else world.theirs()
        for what, *how in life:
            if what == "offer":
                world.offer(min(how[0], max(driver.lists)))
            elif getattr(back_end, what)(*how):
                break
            world.collect()
        back_end.gone()
        world.collect()

    assume(last != "ours" or not world.looks_new)
    finish(getattr(world, last)(), world)


def test_a_ring_that_could_be_another_drivers_is_refused():
    world = Packed()
    theirs = world.theirs()
    # Each lap hides the marks of the one before, and the last makes none.
    for offered, served in ((2, 3), 2), ((2, 3, 3), 2), ((2, 3), 3), ((2, 3), 0):
        for count in offered:
            world.offer(count)
        theirs.take(served)
        if served:
            theirs.give(served)
        world.collect()

    queue = open_queue(
        world.memory, world.described(), world.base, memoryview(world.region)
    )

    assert world.looks_new
    assert queue.broken == "the record of buffers in flight is of another ring"


# --- what it looks like -------------------------------------------------------------


def test_the_record_of_a_split_queue():
    world = Split()
    for _ in range(3):
        world.offer(1)
    ours = world.ours()
    heads = list(world.out)

    ours.take(3)

    states = [world.region[16 + 16 * head :] for head in heads]
    assert struct.unpack_from("=QHHHH", world.region) == (0, 1, SIZE, 0, 0)
    assert [state[0] for state in states] == [1, 1, 1]
    assert [struct.unpack_from("=Q", state, 8)[0] for state in states] == [1, 2, 3]

    ours.give(2)

    assert struct.unpack_from("=HH", world.region, 12) == (heads[1], 2)
    assert [world.region[16 + 16 * head] for head in heads] == [0, 0, 1]


def test_the_record_of_a_packed_queue():
    world = Packed()
    world.offer(2)
    world.offer(1)
    ours = world.ours()
    first, second = world.out
    (a, size), (b, _) = world.out[first]

    ours.take(2)

    assert struct.unpack_from("=QHHHHHHBB", world.region) == (
        *(0, 1, SIZE),
        *(3, 3, 0, 0, 1, 1),
    )
    entry = struct.Struct("=BxHHHQHHIQ")
    entries = [entry.unpack_from(world.region, 32 + 32 * at) for at in range(3)]
    assert entries == [
        (1, 1, 1, 2, 1, first, NEXT | AVAIL, size, a),
        (0, 2, 0, 0, 0, first, AVAIL, size, b),
        (1, 3, 2, 1, 2, second, AVAIL, size, world.out[second][0][0]),
    ]

    ours.give(1)

    assert struct.unpack_from("=HHHHBB", world.region, 12) == (0, 0, 2, 2, 1, 1)
    assert [world.region[32 + 32 * at] for at in range(3)] == [0, 0, 1]


def test_a_record_has_room_for_every_entry():
    assert inflight_size(8, packed=False) == 192
    assert inflight_size(8, packed=True) == 320
    assert inflight_size(1, packed=True) == 64


# --- nonsense -----------------------------------------------------------------------


def refused(world, **changes):
    queue = open_queue(
        world.memory,
        replace(world.described(), **changes),
        world.base,
        memoryview(world.region),
    )
    assert queue.pop(8) == []
    assert queue.broken
    return queue.broken


def begun(driver):
    """Return a world with two buffers in flight; of one and, if it can be, two."""
    world = driver()
    world.offer(1)
    world.offer(driver.lists[-1])
    ours = world.ours()
    ours.take(2)
    ours.gone()
    return world


@formats
def test_a_record_of_another_queue_is_refused(driver):
    world = begun(driver)
    struct.pack_into("=H", world.region, 10, 16)

    assert "is of 16 entries and not of 8" in refused(world)


@formats
def test_a_queue_that_cannot_be_leaves_its_record_alone(driver):
    world = begun(driver)
    before = bytes(world.region)

    assert "is not aligned to 16 bytes" in refused(world, desc=RAM + 8)
    assert world.region == before


@pytest.mark.parametrize("head_and_used_idx", [(9, 0xFFFF), (0, 0x8000)])
def test_a_split_record_of_another_ring_is_refused(head_and_used_idx):
    world = begun(Split)
    struct.pack_into("=HH", world.region, 12, *head_and_used_idx)

    assert "does not show which came back" in refused(world)


def test_a_packed_record_of_another_ring_is_refused():
    world = begun(Packed)
    ours = world.ours()
    ours.take(2)
    ours.give(1)
    ours.gone()
    at = world.ring.desc - RAM

    world.ram[at : at + SIZE * 16] = bytes(SIZE * 16)

    assert "is of another ring" in refused(world)


@pytest.mark.parametrize("at", [16, 18])
def test_a_packed_record_that_stands_nowhere_is_refused(at):
    world = begun(Packed)
    struct.pack_into("=H", world.region, at, SIZE)

    assert "has descriptor 8 of 8 as the next" in refused(world)


@pytest.mark.parametrize(
    "at_and_value",
    [
        (32 + 32 + 2, 0),  # the list goes on in the other
        (32 + 64 + 2, 1),  # the list comes back to itself
        (32 + 6, 0xFFFF),  # the other takes all entries
        (32 + 96 + 16, 7),  # both have the same ID
    ],
)
def test_a_packed_record_with_lists_that_meet_is_refused(at_and_value):
    world = begun(Packed)
    struct.pack_into("=H", world.region, *at_and_value)

    assert "has a buffer in flight twice" in refused(world)


@formats
def test_a_record_may_have_counted_to_the_end(driver):
    world = begun(driver)
    for at in range(world.text.HEAD, len(world.region) - 15, world.text.STATE):
        struct.pack_into("=Q", world.region, at + 8, 2**64 - 1)
    world.offer(1)

    finish(world.ours(), world)


@formats
@given(data=st.data())
@times(2)
def test_whatever_is_recorded_nothing_raises_or_hangs(driver, data):
    world = begun(driver)
    world.offer(1)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(world.region) // 2 - 1))
        word = data.draw(st.integers(0, 9) | st.integers(0, 0xFFFF))
        struct.pack_into("=H", world.region, 2 * at, word)

    queue = open_queue(
        world.memory, world.described(), world.base, memoryview(world.region)
    )
    for _ in range(4):
        queue.push(queue.pop(8))
    queue.release()
