"""Which pages a driver sends, in which order: batches of page numbers.

A batch is one buffer. All begin at the first page that is there for the balloon.
"""

from __future__ import annotations

import random

from machine import BATCH, FIRST_PAGE

SPREAD = 8
"""Pages of RAM for each page that is sent, where they come from all over it."""

_random = random.Random(1)  # noqa: S311 - no secret


def _cut(pfns):
    return [pfns[start : start + BATCH] for start in range(0, len(pfns), BATCH)]


def room(count, spread=SPREAD):
    """Return how many pages there must be for ``count`` batches."""
    return count * BATCH * spread


def contiguous(count):
    return _cut(range(FIRST_PAGE, FIRST_PAGE + count * BATCH))


def in_runs(count, length=16):
    """Return runs of pages with gaps as long as they are."""
    return _cut([FIRST_PAGE + n + n // length * length for n in range(count * BATCH)])


def shuffled(count):
    """Return batches of neighbours, each in any order."""
    return [_random.sample(batch, BATCH) for batch in contiguous(count)]


def shuffled_together(count):
    """Return neighbours in any order, each in any batch."""
    pages = range(FIRST_PAGE, FIRST_PAGE + count * BATCH)
    return _cut(_random.sample(pages, len(pages)))


def every_second(count):
    return _cut(range(FIRST_PAGE, FIRST_PAGE + 2 * count * BATCH, 2))


def scattered(count):
    """Return pages from all over RAM."""
    pages = range(FIRST_PAGE, FIRST_PAGE + SPREAD * count * BATCH)
    return _cut(_random.sample(pages, count * BATCH))
