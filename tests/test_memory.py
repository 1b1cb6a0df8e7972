"""Guest memory against a plain dictionary of bytes."""

from __future__ import annotations

import mmap

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balloon_plugin.errors import HostError
from balloon_plugin.events import MemoryRange
from balloon_plugin.memory import GuestMemory, Region

PAGE = 4096
TOP = 1 << 64

# (first page, pages): three that touch, one by itself, one at the top of the world.
LAYOUT = ((0, 1), (1, 1), (2, 1), (5, 1), (TOP // PAGE - 1, 1))


def ram(*parts):
    """Return memory in which each byte differs from those around it."""
    return GuestMemory(
        Region(first * PAGE, memoryview(bytearray(pattern(first * PAGE, pages))))
        for first, pages in parts
    )


def pattern(start, pages):
    return bytes((start // PAGE * 7 + offset) % 251 for offset in range(pages * PAGE))


BYTES = {
    first * PAGE + offset: byte
    for first, pages in LAYOUT
    for offset, byte in enumerate(pattern(first * PAGE, pages))
}
EDGES = [edge * PAGE for first, pages in LAYOUT for edge in (first, first + pages)]

near_edges = st.builds(int.__add__, st.sampled_from(EDGES), st.integers(-9, 9))
addresses = near_edges | st.integers(-(1 << 70), 1 << 70)
sizes = st.integers(-2, 20) | st.sampled_from([PAGE, 2 * PAGE, 3 * PAGE, 1 << 32, TOP])


def expected(address, size):
    """Return the bytes of a range by looking for each."""
    if not 0 <= size <= len(BYTES):
        return None
    found = [BYTES.get(place) for place in range(address, address + size)]
    return None if None in found else bytes(found)


# --- reading ---


@given(addresses, sizes.filter(bool))
@example(3 * PAGE - 1, 2)
@example(TOP - 1, 1)
@example(TOP - 1, 2)
@example(TOP - PAGE, PAGE)
def test_what_is_read_is_what_is_there(address, size):
    memory = ram(*LAYOUT)

    assert memory.read(address, size) == expected(address, size)
    assert memory.covers(address, size) == (expected(address, size) is not None)


@pytest.mark.parametrize(("address", "size"), [(0, 3 * PAGE), (PAGE - 1, 2)])
def test_what_is_read_may_lie_in_several_regions(address, size):
    assert ram(*LAYOUT).read(address, size) == expected(address, size)


@given(addresses, sizes.filter(bool))
@example(0, 3 * PAGE)
@example(PAGE, PAGE)
@example(TOP - PAGE, PAGE)
def test_a_view_is_inside_one_region(address, size):
    view = ram(*LAYOUT).view(address, size)

    regions = [(first * PAGE, (first + pages) * PAGE) for first, pages in LAYOUT]
    if any(start <= address < address + size <= end for start, end in regions):
        assert bytes(view) == expected(address, size)
    else:
        assert view is None


@pytest.mark.parametrize("address", [0, 100, PAGE, 3 * PAGE, TOP])
def test_no_bytes_can_be_read_where_ram_is_and_at_its_end(address):
    memory = ram(*LAYOUT)

    assert memory.read(address, 0) == b""
    assert memory.covers(address, 0)
    assert len(memory.view(address, 0)) == 0


@pytest.mark.parametrize("address", [-1, 3 * PAGE + 1, 5 * PAGE - 1, TOP + 1])
def test_no_bytes_cannot_be_read_elsewhere(address):
    memory = ram(*LAYOUT)

    assert memory.read(address, 0) is None
    assert not memory.covers(address, 0)
    assert memory.view(address, 0) is None


def test_a_view_is_the_memory_itself():
    memory = ram(*LAYOUT)

    memory.view(PAGE + 8, 2)[:] = b"hi"

    assert memory.read(PAGE + 7, 4)[1:3] == b"hi"


def test_what_is_read_is_a_copy():
    memory = ram(*LAYOUT)
    before = memory.read(0, 4)

    memory.view(0, 4)[:] = b"new!"

    assert before == pattern(0, 1)[:4]


def test_a_guest_without_ram_has_nothing_to_read():
    memory = GuestMemory([])

    assert memory.ranges == ()
    assert memory.read(0, 1) is None
    assert memory.view(0, 0) is None
    assert not memory.covers(0, 0)


# --- regions ---


def test_regions_are_sorted():
    memory = ram((5, 1), (0, 1), (1, 2))

    assert [region.start for region in memory.regions] == [0, PAGE, 5 * PAGE]
    assert memory.ranges == (
        MemoryRange(0, PAGE),
        MemoryRange(PAGE, 2 * PAGE),
        MemoryRange(5 * PAGE, PAGE),
    )


def test_regions_are_equal_only_to_themselves():
    data = memoryview(bytearray(PAGE))

    region = Region(0, data)

    assert region == region  # noqa: PLR0124 - that is the question
    assert region != Region(0, data)
    assert len({region, Region(0, data)}) == 2


@pytest.mark.parametrize(
    "parts", [((0, 1), (0, 1)), ((0, 2), (1, 1)), ((3, 4), (0, 4))]
)
def test_regions_that_overlap_are_refused(parts):
    with pytest.raises(HostError, match="overlap: map each"):
        ram(*parts)


@pytest.mark.parametrize(
    "data",
    [
        bytearray(PAGE),
        memoryview(bytes(PAGE)),
        memoryview(bytearray(PAGE)).cast("H"),
        memoryview(bytearray(2 * PAGE))[::2],
        memoryview(bytearray(PAGE)).cast("B", (64, 64)),
    ],
    ids=["no view", "read-only", "words", "with gaps", "a matrix"],
)
def test_a_region_is_a_writable_view_of_bytes(data):
    with pytest.raises(HostError, match="no writable view of bytes"):
        GuestMemory([Region(0, data)])


@pytest.mark.parametrize(
    ("start", "size"),
    [(0, 0), (0, 100), (0, PAGE + 1), (2, PAGE), (-PAGE, PAGE), (TOP - PAGE, 2 * PAGE)],
)
def test_a_region_is_made_of_whole_pages_of_the_address_space(start, size):
    with pytest.raises(HostError, match="give whole pages of 4096 bytes"):
        GuestMemory([Region(start, memoryview(bytearray(size)))])


def test_after_release_a_mapping_can_be_closed():
    mapping = mmap.mmap(-1, PAGE)
    region = Region(0, memoryview(mapping))
    memory = GuestMemory([region])
    assert memory.read(0, 4) == bytes(4)

    memory.release()

    mapping.close()
    with pytest.raises(ValueError, match="released"):
        len(region.data)
    assert memory.regions == memory.ranges == ()
    assert memory.read(0, 4) is None
    assert memory.view(0, 4) is None
    assert not memory.covers(0, 4)


def test_a_second_release_is_harmless():
    memory = ram(*LAYOUT)

    memory.release()
    memory.release()

    assert memory.ranges == ()
