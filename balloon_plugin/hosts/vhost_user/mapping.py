"""Guest memory that a front end shares, mapped into this process.

Knows regions, files and mappings; nothing of messages. A region is mapped from the
file descriptor that came with it. The descriptor is kept, because pages are given back
by punching holes in its file (:mod:`~balloon_plugin.hosts.discard`). Below each mapping
is a net (:mod:`~balloon_plugin.hosts.nets`), because a front end can shrink its file.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from balloon_plugin import memory
from balloon_plugin.errors import HostError
from balloon_plugin.events import Run
from balloon_plugin.hosts.discard import Backing, give_back
from balloon_plugin.hosts.nets import Net
from balloon_plugin.hosts.vhost_user.files import RefusalError, file_size, map_shared
from balloon_plugin.hosts.vhost_user.payloads import Region
from balloon_plugin.layouts import PAGE_SIZE

__all__ = ["MappedMemory"]


@dataclass(frozen=True, slots=True, eq=False)
class _Mapped:
    """One region. It owns the mapping and, once it is in the memory, the descriptor."""

    region: Region
    fd: int
    mapping: mmap.mmap
    at: int
    host_page_size: int
    net: Net

    def guest_region(self) -> memory.Region:
        """Return a new view of the region."""
        end = self.at + self.region.size
        view = memoryview(self.mapping)[self.at : end]
        return memory.Region(self.region.guest_address, view)

    def backing(self) -> Backing:
        """Return what is behind the region."""
        address, size, _user, offset = self.region
        return Backing(
            address, size, self.mapping, self.at, self.fd, offset, self.host_page_size
        )

    def unmap(self) -> None:
        """Unmap, or leave it to the last view if somebody still holds one."""
        with contextlib.suppress(BufferError):
            self.mapping.close()
            self.net.close()


class MappedMemory:
    """All regions that one front end shares; none to begin with.

    A change builds a new :attr:`guest` and releases the one before: whoever holds views
    of guest memory lets go of them first. A change that is refused changes nothing.
    """

    def __init__(self) -> None:
        self._mapped: list[_Mapped] = []
        self._backings: list[Backing] = []
        self.guest = memory.GuestMemory(())
        """The memory as the device sees it."""

    @property
    def host_page_size(self) -> int:
        """Bytes that can be given back at the least."""
        sizes = (mapped.host_page_size for mapped in self._mapped)
        return max(sizes, default=mmap.PAGESIZE)

    @property
    def torn(self) -> bool:
        """Whether the front end took away memory that was in use."""
        return any(mapped.net.torn for mapped in self._mapped)

    @property
    def files(self) -> frozenset[tuple[int, int]]:
        """The files of all regions, as (device, inode)."""
        about = (os.fstat(mapped.fd) for mapped in self._mapped)
        return frozenset((file.st_dev, file.st_ino) for file in about)

    def replace(self, regions: Sequence[Region], fds: Sequence[int]) -> None:
        """Map these regions in place of all others, and own the descriptors.

        :raises RefusalError: if it cannot be done; the descriptors stay the caller's.
        """
        gone = self._mapped
        self._become([], list(zip(regions, fds, strict=True)))
        _dispose(gone)

    def add(self, region: Region, fd: int, most: int) -> None:
        """Map one more region of at most ``most``, and own the descriptor.

        :raises RefusalError: if it cannot be done; the descriptor stays the caller's.
        """
        if len(self._mapped) >= most:
            raise RefusalError(f"guest memory has {most} regions already")
        self._become(self._mapped, [(region, fd)])

    def remove(self, region: Region) -> None:
        """Unmap a region, which its addresses and size identify.

        :raises RefusalError: if there is no such region.
        """
        gone = [old for old in self._mapped if old.region[:3] == region[:3]]
        if not gone:
            raise RefusalError(f"no region of memory is at {region.guest_address:#x}")
        self._become([old for old in self._mapped if old not in gone], [])
        _dispose(gone)

    def clear(self) -> None:
        """Unmap everything."""
        self.replace((), ())

    def to_guest(self, user_address: int) -> int:
        """Translate an address of the front end's own to a guest-physical one.

        :raises RefusalError: if it is in no region.
        """
        for mapped in self._mapped:
            offset = user_address - mapped.region.user_address
            if 0 <= offset < mapped.region.size:
                return mapped.region.guest_address + offset
        raise RefusalError(f"the address {user_address:#x} is in no region of memory")

    def discard(self, runs: Sequence[Run]) -> int:
        """Give pages back; return how many really were."""
        return give_back(self._backings, runs)

    def _become(self, kept: list[_Mapped], new: list[tuple[Region, int]]) -> None:
        """Take over a new list of regions, of which some are yet to be mapped."""
        added: list[_Mapped] = []
        try:
            for region, fd in new:
                added.append(_map(region, fd))
            mapped = [*kept, *added]
            guest = memory.GuestMemory(each.guest_region() for each in mapped)
        except (RefusalError, HostError) as error:
            for each in added:
                each.unmap()
            raise RefusalError(str(error)) from error
        self.guest.release()
        self.guest, self._mapped = guest, mapped
        self._backings = sorted(
            (each.backing() for each in mapped), key=lambda backing: backing.start
        )


def _dispose(gone: Iterable[_Mapped]) -> None:
    for mapped in gone:
        mapped.unmap()
        os.close(mapped.fd)


def _map(region: Region, fd: int) -> _Mapped:
    """Map one region; its page tables, like all of it, are the front end's choice."""
    if region.size % PAGE_SIZE or region.offset % PAGE_SIZE or not region.size:
        raise RefusalError(
            f"a region of {region.size:#x} bytes at {region.offset:#x} of its file is "
            f"not made of whole pages of {PAGE_SIZE} bytes"
        )
    end, size = region.offset + region.size, file_size(fd)
    if end > size:
        raise RefusalError(f"a region ends at {end:#x} of a file of {size:#x} bytes")
    # On a file of huge pages everything has to be aligned to them.
    block = max(mmap.PAGESIZE, os.fstatvfs(fd).f_bsize)
    start = region.offset // block * block
    mapping = map_shared(fd, min(-(-end // block) * block, size) - start, start)
    net = Net(mapping, block)
    return _Mapped(region, fd, mapping, region.offset - start, block, net)
