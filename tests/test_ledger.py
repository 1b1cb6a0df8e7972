"""The ledger, against sets of page numbers."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import textwrap

import pytest
from examples import times
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from page_runs import KIB, PAGE, pages_of, ranges, runs_of

from balloon_plugin.errors import HostError
from balloon_plugin.events import MemoryRange
from balloon_plugin.ledger import Ledger
from balloon_plugin.page_states import CHUNK
from balloon_plugin.pages import clip, merge

BLOCK = 512


def saved(ledger):
    """Return the runs in the balloon and those given back, from what is saved."""
    pages = {"1": set(), "2": set()}
    for chunk, blocks in json.loads(json.dumps(ledger.save()))["chunks"].items():
        for block, digits in blocks.items():
            first = int(chunk) * CHUNK + int(block) * BLOCK
            for page, digit in enumerate(digits if len(digits) > 1 else digits * BLOCK):
                pages.setdefault(digit, set()).add(first + page)
    return runs_of(pages["1"] | pages["2"]), runs_of(pages["2"])


# --- the ledger, by example ---


@pytest.mark.parametrize("size", [0, 1, 2048, 4097, 12288, -4096])
def test_a_host_page_is_a_power_of_two(size):
    with pytest.raises(HostError, match="give a power of two, 4096 or more"):
        Ledger((), size)


@pytest.mark.parametrize("accumulate", [True, False])
def test_with_small_host_pages_all_is_ripe(accumulate):
    ledger = Ledger(ranges((0, 100)), 4 * KIB)
    ledger.inflate([(1, 5), (9, 1)])

    assert ledger.ripe([(1, 5), (9, 1)], accumulate=accumulate) == [(1, 5), (9, 1)]


def test_host_pages_may_have_two_pieces():
    ledger = Ledger(ranges((0, 100)), 8 * KIB)
    ledger.inflate([(1, 4)])

    assert ledger.ripe([(1, 4)], accumulate=False) == [(2, 2)]


def test_only_whole_host_pages_are_ripe():
    ledger = Ledger(ranges((0, 100)), 16 * KIB)
    ledger.inflate([(1, 12), (20, 4)])

    assert ledger.ripe([(1, 12), (20, 4)], accumulate=False) == [(4, 8), (20, 4)]


def test_pieces_of_an_earlier_buffer_count_only_if_the_driver_must_tell():
    ledger = Ledger(ranges((0, 100)), 16 * KIB)
    ledger.inflate([(4, 3)])
    ledger.inflate([(7, 1)])

    assert ledger.ripe([(7, 1)], accumulate=False) == []
    assert ledger.ripe([(7, 1)], accumulate=True) == [(4, 4)]


def test_gathered_host_pages_are_named_once_and_merged():
    ledger = Ledger(ranges((0, 100)), 16 * KIB)
    ledger.inflate([(0, 12)])

    assert ledger.ripe([(0, 1), (2, 1), (5, 1), (10, 1)], accumulate=True) == [(0, 12)]


def test_of_a_run_the_ends_may_not_be_ripe_and_the_middle_is():
    ledger = Ledger(ranges((0, 100)), 16 * KIB)
    ledger.inflate([(2, 12)])

    assert ledger.ripe([(2, 12)], accumulate=True) == [(4, 8)]
    ledger.inflate([(0, 2)])
    assert ledger.ripe([(2, 12)], accumulate=True) == [(0, 12)]


def test_a_host_page_across_two_ranges_is_never_ripe():
    ledger = Ledger(ranges((0, 6), (6, 10)), 16 * KIB)
    ledger.inflate([(0, 6), (6, 10)])

    for accumulate in (True, False):
        assert ledger.ripe([(0, 6), (6, 10)], accumulate=accumulate) == [
            (0, 4),
            (8, 8),
        ]


def test_a_host_page_at_the_torn_edge_of_ram_is_never_ripe():
    ledger = Ledger(ranges((1, 2)), 16 * KIB)
    ledger.inflate([(1, 2)])

    assert ledger.ripe([(1, 2)], accumulate=True) == []


def test_ranges_that_touch_are_given_back_apart():
    ledger = Ledger(ranges((0, 8), (8, 8)), 16 * KIB)
    ledger.inflate([(0, 8), (8, 8)])

    assert ledger.ripe([(7, 1), (8, 1)], accumulate=True) == [(4, 4), (8, 4)]


def test_host_pages_may_be_larger_than_what_is_kept_together():
    gigabyte = 1 << 18
    assert gigabyte > CHUNK
    ledger = Ledger(ranges((0, 2 * gigabyte)), gigabyte * PAGE)
    ledger.inflate([(0, gigabyte - 1)])
    assert ledger.ripe([(0, gigabyte - 1)], accumulate=True) == []

    ledger.inflate([(gigabyte - 1, 1)])

    assert ledger.ripe([(gigabyte - 1, 1)], accumulate=True) == [(0, gigabyte)]


def test_using_a_piece_brings_the_whole_host_page_back():
    ledger = Ledger(ranges((0, 100)), 16 * KIB)
    ledger.inflate([(0, 8)])
    ledger.mark_reclaimed([(0, 8)])

    ledger.deflate([(2, 1)])

    assert (ledger.pages, ledger.reclaimed) == (7, 4)


def test_using_a_piece_leaves_other_host_pages_alone():
    ledger = Ledger(ranges((0, 100)), 16 * KIB)
    ledger.inflate([(0, 24)])
    ledger.mark_reclaimed([(0, 8)])

    ledger.inflate([(30, 1)])
    ledger.deflate([(20, 1)])

    assert (ledger.pages, ledger.reclaimed) == (24, 8)


def test_deflate_tells_how_many_pages_were_unknown():
    ledger = Ledger(ranges((0, 100)), 4 * KIB)
    ledger.inflate([(10, 10)])

    assert ledger.deflate([(5, 10)]) == 5
    assert ledger.deflate([(5, 10)]) == 10
    assert ledger.pages == 5


def test_a_ledger_takes_over_what_is_still_ram():
    old = Ledger(ranges((0, 100)), 4 * KIB)
    old.inflate([(10, 10), (80, 10)])
    old.mark_reclaimed([(15, 5), (80, 5)])

    new = Ledger(ranges((0, 17), (17, 66)), 4 * KIB)
    new.take_over(old)

    assert saved(new) == ([(10, 10), (80, 3)], [(15, 5), (80, 3)])
    assert (new.pages, new.reclaimed) == (13, 8)


def test_a_ledger_takes_over_what_came_in_any_order():
    old = Ledger(ranges((0, 4 * CHUNK)), 4 * KIB)
    for page in (3 * CHUNK, CHUNK - 1, CHUNK):
        old.inflate([(page, 1)])
    old.mark_reclaimed([(3 * CHUNK, 1)])

    new = Ledger(ranges((0, 4 * CHUNK)), 4 * KIB)
    new.take_over(old)

    assert saved(new) == ([(CHUNK - 1, 2), (3 * CHUNK, 1)], [(3 * CHUNK, 1)])


def test_a_record_is_taken_over_through_json():
    ledger = Ledger(ranges((0, 100)), 4 * KIB)
    ledger.inflate([(2, 3), (90, 10)])
    ledger.mark_reclaimed([(3, 1), (90, 10)])

    other = Ledger(ranges((0, 50), (50, 50)), 64 * KIB)
    other.inflate([(40, 1)])
    other.load(json.loads(json.dumps(ledger.save())))

    assert other.save() == ledger.save()
    assert (other.pages, other.reclaimed) == (13, 11)


# --- the ledger, saved ---

RUNS = {"ballooned": [[2, 3]], "reclaimed": [[3, 1]]}
"""As devices saved it before they kept chunks."""


def test_a_record_of_runs_is_read():
    ledger = Ledger(ranges((0, 50), (50, 50)), 64 * KIB)
    ledger.inflate([(40, 1)])

    ledger.load({"ballooned": [[2, 3], [45, 10]], "reclaimed": [[3, 1], [45, 10]]})

    assert saved(ledger) == ([(2, 3), (45, 10)], [(3, 1), (45, 10)])
    assert (ledger.pages, ledger.reclaimed) == (13, 11)


def test_only_the_chunk_that_changed_is_saved_anew():
    ledger = Ledger(ranges((0, 4 * CHUNK)), 4 * KIB)
    ledger.inflate([(5, 1), (CHUNK, CHUNK), (2 * CHUNK, 7)])
    before = ledger.save()["chunks"]
    copy = json.dumps(before)

    ledger.deflate([(2 * CHUNK, 7)])
    ledger.mark_reclaimed([(5, 1)])
    after = ledger.save()["chunks"]

    assert after["1"] is before["1"]
    assert after.keys() == {"0", "1"}
    assert after["0"]["0"][5] == "2"
    assert json.dumps(before) == copy


def test_a_ledger_that_was_emptied_or_loaded_saves_nothing_of_before():
    ledger = Ledger(ranges((0, 4 * CHUNK)), 4 * KIB)
    nothing = ledger.save()
    ledger.inflate([(5, 1)])
    full = ledger.save()

    ledger.deflate([(5, 1)])
    assert ledger.save() == nothing
    ledger.inflate([(5, 1), (CHUNK, 1)])
    ledger.deflate([(CHUNK, 1)])
    assert ledger.save() == full
    ledger.load(full)
    assert ledger.save() == full
    ledger.load(nothing)
    assert ledger.save() == nothing


DIGITS = "0" * 50 + "1" * 50 + "0" * 412


@pytest.mark.parametrize(
    "damage",
    [
        {"chunks": None},
        {"chunks": []},
        {"chunks": {"x": {}}},
        {"chunks": {"0": None}},
        {"chunks": {"0": {"0": "1"}}},
        {"chunks": {"0": {"0": DIGITS}, "1": {"0": "1"}}},
        {"chunks": {"0": {"0": "0" + DIGITS[:-1]}}},
        {"chunks": {"0": {"1": DIGITS}}},
        {"chunks": {"123456789012": {}}},
    ],
    ids=lambda damage: str(damage)[:40],
)
def test_damaged_chunks_are_refused_and_change_nothing(damage):
    ledger = Ledger(ranges((40, 60)), 4 * KIB)
    ledger.load({"chunks": {"0": {"0": DIGITS}}})
    before = ledger.save()

    with pytest.raises(ValueError, match="chunk"):
        ledger.load(damage)

    assert ledger.save() == before
    assert ledger.pages == 50


def test_a_chunk_that_is_no_ram_is_not_looked_into():
    ledger = Ledger(ranges((CHUNK, 100)), 4 * KIB)

    with pytest.raises(ValueError, match="not all that is recorded in chunk 2 "):
        ledger.load({"chunks": {"2": "whatever"}})


@pytest.mark.parametrize(
    "damage",
    [
        {"ballooned": None},
        {"ballooned": {"2": 3}},
        {"ballooned": [None]},
        {"ballooned": [[2]]},
        {"ballooned": [[2, 3, 4]]},
        {"ballooned": ["23"]},
        {"ballooned": [[2, 3.0]]},
        {"ballooned": [["2", 3]]},
        {"ballooned": [[2, 3], [7, 0]]},
        {"ballooned": [[2, -3]]},
        {"ballooned": [[-2, 7]]},
        {"ballooned": [[2, 3], [4, 1]]},
        {"ballooned": [[7, 1], [2, 3]]},
        {"ballooned": [[2, 99]]},
        {"ballooned": [[2, 3], [1 << 70, 1]]},
        {"ballooned": []},
        {"reclaimed": [[4, 2]]},
        {"reclaimed": None},
    ],
    ids=str,
)
def test_a_damaged_record_of_runs_is_refused_and_changes_nothing(damage):
    ledger = Ledger(ranges((0, 100)), 4 * KIB)
    ledger.inflate([(50, 5)])
    before = ledger.save()

    with pytest.raises(ValueError, match=r"ballooned|reclaimed"):
        ledger.load(RUNS | damage)

    assert ledger.save() == before
    assert ledger.pages == 5


def test_a_record_without_its_parts_is_refused():
    with pytest.raises(ValueError, match="ballooned is no list"):
        Ledger(ranges((0, 100)), 4 * KIB).load({})


def test_an_idle_ledger_costs_nothing_and_an_emptied_one_neither():
    ledger = Ledger(ranges((0, 1 << 32)), 4 * KIB)
    assert not ledger._chunks

    ledger.inflate([(CHUNK - 1, 2)])
    ledger.deflate([(3 * CHUNK, 1)])
    ledger.mark_reclaimed([(3 * CHUNK, 1)])
    assert sum(map(len, ledger._chunks.values())) == 2 * CHUNK

    ledger.deflate([(0, 3 * CHUNK)])
    assert not ledger._chunks


def test_the_memory_of_a_hundred_idle_ledgers_of_a_terabyte():
    program = """
        import resource
        from balloon_plugin.events import MemoryRange
        from balloon_plugin.ledger import Ledger

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ledgers = [Ledger([MemoryRange(0, 1 << 40)], 65536) for _ in range(100)]
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """

    grown = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", textwrap.dedent(program)],
        check=True,
        capture_output=True,
        text=True,
    )

    assert int(grown.stdout) < 1024


def test_what_is_kept_is_in_the_balloon_and_not_given_back():
    ledger = Ledger(ranges((0, 1000)), 4 * KIB)
    ledger.inflate([(10, 20), (50, 10)])
    ledger.mark_reclaimed([(15, 5), (55, 5)])

    assert ledger.kept(0, 1000) == [(10, 5), (20, 10), (50, 5)]
    assert ledger.kept(12, 1000) == [(12, 3), (20, 10), (50, 5)]
    assert ledger.kept(60, 1000) == []


@pytest.mark.parametrize("most", [1, 5, 6, 15, 100])
def test_no_more_is_kept_than_was_asked_for(most):
    ledger = Ledger(ranges((0, 4 * CHUNK)), 4 * KIB)
    pages = [(5, 5), (CHUNK - 5, 10), (3 * CHUNK, 5)]
    ledger.inflate(pages)

    kept = ledger.kept(0, most)

    assert sum(count for _, count in kept) == min(most, 20)
    assert kept[-1][0] + kept[-1][1] <= 3 * CHUNK + 5
    assert ledger.kept(3 * CHUNK - 1, 100) == [(3 * CHUNK, 5)]


def test_what_is_kept_is_in_order_whatever_came_first():
    ledger = Ledger(ranges((0, 4 * CHUNK)), 4 * KIB)
    for page in (3 * CHUNK, 5, CHUNK):
        ledger.inflate([(page, 1)])

    assert ledger.kept(0, 2) == [(5, 1), (CHUNK, 1)]
    assert ledger.kept(CHUNK + 1, 2) == [(3 * CHUNK, 1)]


def test_what_is_kept_is_split_where_ranges_of_ram_meet():
    ledger = Ledger(ranges((0, 6), (6, 10)), 4 * KIB)
    ledger.inflate([(0, 6), (6, 10)])

    assert ledger.kept(0, 100) == [(0, 6), (6, 10)]


# --- the ledger, by a model ---

# Ranges that touch and that do not, that begin and end inside a large host page, and
# that cross from what is kept together into what is kept apart.
LEDGER_RAM = ranges((0, 40), (40, 50), (CHUNK - 24, 30), (CHUNK + 6, 34))
LEDGER_EDGES = {40, CHUNK + 6}
LEDGER_PAGES = pages_of((part.start // PAGE, part.size // PAGE) for part in LEDGER_RAM)

some_runs = st.lists(
    st.tuples(
        st.sampled_from([0, 16, 32, 64, CHUNK - 24, CHUNK - 16, CHUNK]),
        st.integers(-3, 16),
        st.integers(1, 40),
    ),
    max_size=6,
).map(lambda parts: pages_of((start + shift, n) for start, shift, n in parts))
some_pages = some_runs.map(lambda pages: pages & LEDGER_PAGES)


class LedgerMachine(RuleBasedStateMachine):
    """A ledger beside two sets; subclasses say how large host pages are."""

    pieces: int

    def __init__(self):
        super().__init__()
        self.ledger = self.another()
        self.ballooned = set()
        self.reclaimed = set()

    def another(self):
        return Ledger(LEDGER_RAM, self.pieces * PAGE)

    def host_page(self, page):
        first = page - page % self.pieces
        return set(range(first, first + self.pieces))

    def whole_host_pages(self, pages, of):
        """Return the host pages with one of ``pages``, if all of them is in ``of``."""
        return {
            piece
            for page in pages
            for piece in self.host_page(page)
            if self.host_page(page) <= of
            and any(
                self.host_page(page)
                <= pages_of([(part.start // PAGE, part.size // PAGE)])
                for part in LEDGER_RAM
            )
        }

    def use(self, pages):
        for page in pages:
            self.reclaimed -= self.host_page(page)

    @rule(pages=some_pages, accumulate=st.booleans(), reclaim=st.booleans())
    def inflate(self, pages, accumulate, reclaim):
        runs = runs_of(pages, LEDGER_EDGES)
        self.ledger.inflate(runs)
        self.use(pages)
        self.ballooned |= pages

        ripe = self.ledger.ripe(runs, accumulate=accumulate)

        of = self.ballooned if accumulate else pages
        whole = pages if self.pieces == 1 else self.whole_host_pages(pages, of)
        assert ripe == runs_of(whole, LEDGER_EDGES)
        if reclaim:
            self.ledger.mark_reclaimed(ripe)
            self.reclaimed |= whole

    @rule(pages=some_pages)
    def deflate(self, pages):
        unknown = self.ledger.deflate(runs_of(pages, LEDGER_EDGES))

        assert unknown == len(pages - self.ballooned)
        self.use(pages)
        self.ballooned -= pages

    @rule(pages=some_pages)
    def mark_reclaimed(self, pages):
        self.ledger.mark_reclaimed(runs_of(pages, LEDGER_EDGES))
        self.reclaimed |= pages & self.ballooned

    @rule()
    @precondition(lambda self: self.ballooned)
    def clear(self):
        self.ledger.clear()
        self.ballooned.clear()
        self.reclaimed.clear()

    @rule(load=st.booleans())
    def move(self, load):
        ledger = self.another()
        if load:
            ledger.load(json.loads(json.dumps(self.ledger.save())))
        else:
            ledger.take_over(self.ledger)
        self.ledger = ledger

    @invariant()
    def agree(self):
        assert self.ledger.pages == len(self.ballooned)
        assert self.ledger.reclaimed == len(self.reclaimed)
        assert saved(self.ledger) == (runs_of(self.ballooned), runs_of(self.reclaimed))


@pytest.mark.slow
@pytest.mark.hypothesis
@pytest.mark.parametrize("host_page_kib", [4, 16, 64])
def test_the_ledger_is_two_sets(host_page_kib):
    class Machine(LedgerMachine):
        pieces = host_page_kib * KIB // PAGE

    run_state_machine_as_test(Machine, settings=times(0.6, stateful_step_count=15))


@given(st.lists(some_runs, max_size=4), st.sampled_from([1, 4, 16]))
def test_a_batch_from_numbers_to_ripe_runs(batches, pieces):
    ledger = Ledger(LEDGER_RAM, pieces * PAGE)
    pages = set().union(*batches)
    runs, outside = clip(merge(itertools.chain(*batches)), LEDGER_RAM)
    ledger.inflate(runs)

    ripe = ledger.ripe(runs, accumulate=False)

    assert outside == len(pages - LEDGER_PAGES)
    assert pages_of(ripe) <= pages & LEDGER_PAGES
    for first, count in ripe:
        assert count > 0
        assert first % pieces == count % pieces == 0
    assert all(sum(below) <= above[0] for below, above in itertools.pairwise(ripe))


def test_a_page_that_is_not_in_the_balloon_cannot_be_given_back():
    ledger = Ledger([MemoryRange(0, 1 << 20)], 4096)
    ledger.inflate([(4, 1)])

    ledger.mark_reclaimed([(5, 1)])

    assert (ledger.pages, ledger.reclaimed) == (1, 0)
