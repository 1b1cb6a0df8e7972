"""What it takes to give pages back of memory on huge pages, beside 4 KiB ones.

The kernel's part only: the device's own is the same. Needs, and does not change:
``echo 32 > /proc/sys/vm/nr_hugepages`` and
``echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled``, as root.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from contest import Samples, timed

from balloon_plugin.hosts.discard import Backing, give_back

PAGE, HUGE = 4096, 2 << 20
PIECES = HUGE // PAGE
SIZE = 32 * HUGE
PAGES = SIZE // PAGE

HEAD = (
    "given back",
    "4 KiB pages, ns/page",
    "transparent, ns/page",
    "hugetlb, ns/page",
    "transparent : 4 KiB",
)

PATTERNS = {
    "one page of each 2 MiB": [[(page, 1)] for page in range(0, PAGES, PIECES)],
    "every second page, 256 at once": [
        [(page, 1) for page in range(first, first + PIECES, 2)]
        for first in range(0, PAGES, PIECES)
    ],
    "256 in a row": [[(page, 256)] for page in range(0, PAGES, 256)],
    "512 in a row, a huge page": [[(page, PIECES)] for page in range(0, PAGES, PIECES)],
}
"""What each call gives back, by name."""


class Memory:
    """Shared memory, and whatever its pages are."""

    def __init__(self, flags=0, advice=mmap.MADV_NOHUGEPAGE):
        self._fd = os.memfd_create("ram", flags)
        os.ftruncate(self._fd, SIZE)
        self._mapping = mmap.mmap(self._fd, SIZE)
        if not flags:
            self._mapping.madvise(advice)
        page_size = HUGE if flags else PAGE
        self._backing = Backing(
            0, SIZE, self._mapping, file=self._fd, page_size=page_size
        )

    def turn(self, calls):
        """Fill all of it; return how many seconds it takes to give that back."""
        give_back([self._backing], [(0, PAGES)])
        self._mapping[:] = b"\1" * SIZE
        seconds = timed(self._give_back, calls)
        whole = sum(count for runs in calls for _, count in runs)
        assert os.fstat(self._fd).st_blocks * 512 == SIZE - whole * PAGE
        return seconds / whole

    def _give_back(self, calls):
        for runs in calls:
            give_back([self._backing], runs)

    @property
    def transparent(self):
        """Whether it is on huge pages that nobody sees."""
        self._mapping[:] = b"\1" * SIZE
        smaps = Path("/proc/self/smaps_rollup").read_text()
        (line,) = [line for line in smaps.splitlines() if "ShmemPmdMapped" in line]
        return int(line.split()[1]) * 1024 >= SIZE - HUGE

    def close(self):
        self._mapping.close()
        os.close(self._fd)


@pytest.fixture
def memories():
    """Give small, transparent and hugetlb memory, the last only if there is a pool."""
    made = [Memory(), Memory(advice=mmap.MADV_HUGEPAGE)]
    if not made[1].transparent:
        pytest.skip(f"no huge pages for shared memory: {__doc__.splitlines()[-1]}")
    try:
        made.append(Memory(os.MFD_HUGETLB | os.MFD_HUGE_2MB))
    except OSError:
        pytest.skip("no 32 huge pages of 2 MiB: enlarge /proc/sys/vm/nr_hugepages")
    yield made
    for memory in made:
        memory.close()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_holes(benchmark, memories, pattern, book):
    """Measure holes in each memory, in turns."""
    benchmark.group = "holes in memory on huge pages"
    calls = PATTERNS[pattern]
    whole = all(count % PIECES == 0 for runs in calls for _, count in runs)
    kinds = memories if whole else memories[:2]
    seconds = [[] for _ in kinds]

    def turn():
        for memory, found in zip(kinds, seconds, strict=True):
            found.append(memory.turn(calls))

    benchmark.pedantic(turn, rounds=12, warmup_rounds=1)

    usual = [Samples(found[1:]).usual for found in seconds]
    small, transparent, *_ = usual
    each = [f"{found * 1e9:,.0f}" for found in usual]
    book.row(
        "Holes in memory on huge pages",
        HEAD,
        pattern,
        *(each if whole else [*each, "none"]),
        f"**{transparent / small:.2f}**",
    )
