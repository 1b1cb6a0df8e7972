"""A device and the bare system calls take turns, so that noise meets both alike.

Time is what the processor spent on this thread. A shared machine takes the processor
away at any moment; wall-clock time would tell of the others.
"""

from __future__ import annotations

import itertools
import statistics
import time
from functools import partial

import rivals

clock = time.thread_time


def timed(function, *arguments):
    """Return how many seconds a call takes."""
    start = clock()
    function(*arguments)
    return clock() - start


class Samples:
    """Seconds, of all rounds of one contestant."""

    def __init__(self, seconds):
        self.seconds = list(seconds)

    @property
    def usual(self):
        """The median: for ratios, of which both sides suffer alike."""
        return statistics.median(self.seconds)

    @property
    def best(self):
        """The least: for aims, since others can only make it slower."""
        return min(self.seconds)


class Contest:
    """Kicks that fill a balloon, and then the balloon is emptied, again and again.

    The kicks of a turn follow each other without a pause, as those of a driver do, so
    that each finds the processor's caches as the one before left them.

    :param machine: whose driver is believed; its balloon is empty.
    :param kicks: for each kick its batches of page numbers.

    :ivar pages: how many pages a kick has.
    :ivar page_by_page: samples of a hole for each page.
    :ivar merged: samples of a hole for each run.
    :ivar ours: samples of whole kicks.
    :ivar own: the same without the time spent in discarding.
    """

    def __init__(self, machine, kicks):
        self._machine = machine
        self._kicks = kicks
        self._pages = [list(itertools.chain(*kick)) for kick in kicks]
        self.pages = len(self._pages[0])
        self._discarding = []
        machine.host.mapped.discard = self._discard
        self._real_discard = type(machine.host.mapped).discard

    def run(self, benchmark, turns):
        """Measure; the first of ``turns`` does not count."""
        bare = rivals.page_by_page, rivals.merged
        self._rivals = {rival: [] for rival in bare}
        each = len(self._kicks)
        rounds = each * (turns - 1)
        steps = self._steps()
        benchmark.pedantic(
            partial(self._machine.serve, 0),
            setup=lambda: next(steps),
            rounds=rounds,
            warmup_rounds=each,
        )
        self._empty()
        self.ours = Samples(benchmark.stats.stats.data)
        self.page_by_page, self.merged = (
            Samples(self._rivals[rival][each:]) for rival in bare
        )
        discarding = self._discarding[each:]
        self.own = Samples(
            whole - part
            for whole, part in zip(self.ours.seconds, discarding, strict=True)
        )

    def _steps(self):
        while True:
            for rival, seconds in self._rivals.items():
                self._populate()
                seconds += [timed(rival, self._machine.fd, p) for p in self._pages]
            self._populate()
            for kick in self._kicks:
                self._machine.target()
                self._machine.driver.offer(kick)
                self._discarding.append(0.0)
                yield
            self._empty()

    def _populate(self):
        for pages in self._pages:
            self._machine.driver.populate(pages)

    def _empty(self):
        """See that all pages went, and take them back."""
        count = sum(map(len, self._pages))
        assert self._machine.device.query().reclaimed == count
        assert rivals.pages_of(self._machine.fd) < count
        self._machine.write_actual(count)
        for kick in self._kicks:
            self._machine.deflate(kick)
        self._machine.write_actual(0)
        assert self._machine.device.query().ballooned == 0

    def _discard(self, runs):
        start = clock()
        given = self._real_discard(self._machine.host.mapped, runs)
        self._discarding[-1] += clock() - start
        return given
