"""The frames of a guest kernel: who has them, and how losses are counted."""

from __future__ import annotations

import itertools
import mmap

import pytest

from balloon_plugin.errors import HostError
from balloon_plugin.guests.kernel import Kernel, Layout
from balloon_plugin.guests.oops import Oops
from balloon_plugin.guests.ram import Ram
from balloon_plugin.guests.traits import Allocation

PAGE = 4096
MIB = 1 << 20


CONTIGUOUS, SCATTERED = Allocation.CONTIGUOUS, Allocation.SCATTERED


def kernel_of(memory, *, start=0, allocation=CONTIGUOUS, **layout):
    ram = Ram(start, memoryview(memory))
    return Kernel(ram, Layout(allocation=allocation, **layout))


def wipe(memory, page, count=1):
    memory[page * PAGE : (page + count) * PAGE] = bytes(count * PAGE)


@pytest.fixture
def memory():
    return mmap.mmap(-1, 32 * MIB)


def everything(kernel):
    return kernel.allocate(1 << 20)


# --- allocation ---------------------------------------------------------------------


def test_frames_come_side_by_side_from_above_the_kernel(memory):
    kernel = kernel_of(memory)

    assert kernel.allocate(5) == [1024, 1025, 1026, 1027, 1028]
    assert kernel.ballooned == 5


def test_frame_numbers_count_from_address_0(memory):
    kernel = kernel_of(memory, start=0x4000_0000, page_size=64 << 10)

    assert kernel.allocate(1) == [0x4000 + 64]
    assert kernel.ballooned == 16


def test_an_island_in_use_lies_in_the_first_batch(memory):
    kernel = kernel_of(memory)
    frames = kernel.allocate(256)

    assert set(range(1024, 1281)) - set(frames) == {1124}


@pytest.mark.parametrize("allocation", Allocation)
@pytest.mark.parametrize(("size", "islands"), [(4, 33), (64, 3), (256, 3)])
def test_every_free_frame_is_given_out_once(memory, allocation, size, islands):
    kernel = kernel_of(memory, page_size=size << 10, allocation=allocation)
    frames = everything(kernel)

    assert len(set(frames)) == len(frames)
    assert len(frames) == (28 << 10) // size - islands
    assert min(frames) >= (4 << 10) // size
    assert max(frames) < (32 << 10) // size


def test_scattered_frames_are_all_over_ram_and_the_same_for_a_seed(memory):
    frames, again, others = (
        kernel.allocate(200)
        for kernel in (
            kernel_of(memory, allocation=SCATTERED, seed=seed) for seed in (1, 1, 2)
        )
    )

    assert frames == again != others
    assert min(frames) < 2048
    assert max(frames) > 7168
    assert sum(b - a == 1 for a, b in itertools.pairwise(frames)) < 5


def test_the_peak_is_remembered(memory):
    kernel = kernel_of(memory)
    frames = kernel.allocate(300)
    kernel.free(frames[1:])
    kernel.allocate(1)

    assert kernel.ballooned == 2
    assert kernel.peak_ballooned == 300


def test_a_full_guest_gives_up_what_it_had_reused(memory):
    kernel = kernel_of(memory)
    frames = everything(kernel)
    kernel.free(frames)

    assert sorted(everything(kernel)) == sorted(frames)
    assert kernel.lost_pages() == 0


# --- frees, right and wrong ---------------------------------------------------------


def test_a_frame_from_the_balloon_is_put_to_use_at_once(memory):
    kernel = kernel_of(memory)
    (frame,) = kernel.allocate(1)
    kernel.free([frame])
    before = kernel.lost_pages()
    wipe(memory, frame)

    assert before == 0
    assert kernel.lost_pages() == 1


def test_some_frames_are_put_to_use_and_the_others_are_free(memory):
    kernel = kernel_of(memory)
    frames = kernel.allocate(100)
    kernel.free(frames)
    wipe(memory, frames[0], 100)

    assert kernel.lost_pages() == 64


def test_all_pieces_of_a_reused_frame_count(memory):
    kernel = kernel_of(memory, page_size=64 << 10)
    (frame,) = kernel.allocate(1)
    kernel.free([frame])
    wipe(memory, frame * 16 + 3, 2)

    assert kernel.lost_pages() == 2


def test_freeing_a_frame_in_use_is_harm(memory):
    kernel = kernel_of(memory, page_size=64 << 10)
    kernel.free([5])

    assert kernel.lost_pages() == 16
    assert kernel.double_frees == 0


def test_freeing_it_again_is_a_double_free(memory):
    kernel = kernel_of(memory, page_size=64 << 10)
    kernel.free([5])
    kernel.free([5])

    assert kernel.lost_pages() == 16
    assert kernel.double_frees == 1


def test_a_frame_freed_in_use_is_given_to_the_balloon_next(memory):
    kernel = kernel_of(memory)
    kernel.free([7])

    assert kernel.allocate(1) == [7]
    assert kernel.allocate(1) == [1024]


def test_an_island_freed_by_mistake_is_given_out_once(memory):
    kernel = kernel_of(memory)
    kernel.free([1124])
    frames = everything(kernel)

    assert frames.count(1124) == 1


def test_a_reused_frame_freed_by_mistake_is_lost(memory):
    kernel = kernel_of(memory)
    (frame,) = kernel.allocate(1)
    kernel.free([frame])
    kernel.free([frame])

    assert kernel.lost_pages() == 1
    assert everything(kernel).count(frame) == 1


@pytest.mark.parametrize("frame", [0x3FFF, 0x4000 + 512])
def test_freeing_what_is_not_ram_kills_the_driver(memory, frame):
    kernel = kernel_of(memory, start=0x4000_0000, page_size=64 << 10)

    with pytest.raises(Oops, match=f"{frame:#x}, which is not RAM"):
        kernel.free([frame])


# --- content ------------------------------------------------------------------------


def test_low_pages_are_watched_as_far_as_asked(memory):
    kernel = kernel_of(memory, watched=64)
    wipe(memory, 60, 10)

    assert kernel.lost_pages() == 4


def test_no_more_than_low_memory_is_watched(memory):
    kernel = kernel_of(memory, watched=1 << 20)
    wipe(memory, 1000, 100)

    assert kernel.lost_pages() == 24


def test_islands_are_watched(memory):
    kernel = kernel_of(memory)
    wipe(memory, 1124)

    assert kernel.lost_pages() == 1


def test_the_balloons_pages_are_not(memory):
    kernel = kernel_of(memory)
    (frame,) = kernel.allocate(1)
    wipe(memory, frame)

    assert kernel.lost_pages() == 0


def test_a_page_lost_both_ways_counts_once(memory):
    kernel = kernel_of(memory)
    kernel.free([3])
    wipe(memory, 3)

    assert kernel.lost_pages() == 1


def test_a_new_kernel_takes_over_all_ram(memory):
    first = kernel_of(memory)
    first.allocate(1)
    first.free([9])
    wipe(memory, 2)
    second = kernel_of(memory)

    assert second.lost_pages() == 0
    assert second.allocate(1) == [1024]


# --- the heap -----------------------------------------------------------------------


def test_the_heap_is_in_low_memory_and_watched(memory):
    kernel = kernel_of(memory)
    address = kernel.claim(PAGE + 1)
    following = kernel.claim(1)
    wipe(memory, address // PAGE + 1)

    assert 3 * MIB < address < 4 * MIB
    assert following == address + 2 * PAGE
    assert kernel.lost_pages() == 1


def test_the_heap_is_enough_for_one_driver(memory):
    kernel = kernel_of(memory)
    kernel.claim(256 << 10)
    with pytest.raises(HostError, match="256 KiB"):
        kernel.claim(1)
    kernel.empty_heap()

    assert kernel.claim(256 << 10) + (256 << 10) == 4 * MIB


def test_too_little_ram_is_refused():
    with pytest.raises(HostError, match="at least 1 MiB"):
        kernel_of(bytearray(MIB // 2))

    assert kernel_of(bytearray(MIB)).allocate(1) == [64]
