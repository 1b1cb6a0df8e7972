"""User-Mode Linux: a real, unmodified Linux kernel that runs as an ordinary process.

Neither KVM nor QEMU nor root rights are needed. Its virtio-over-vhost-user transport is
built in, its balloon driver is a module of the same Debian package, and its console is
a pair of pipes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from balloon_plugin.boot import initramfs
from balloon_plugin.boot.init import root_files
from balloon_plugin.boot.modules import Module, load_modules
from balloon_plugin.boot.programs import find_busybox, find_program
from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder
from balloon_plugin.layouts import VIRTIO_ID_BALLOON

__all__ = ["UserModeLinux", "find_uml"]

MODULES: Final = Path("/usr/lib/uml/modules")
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - where the kernel itself looks
DRIVER: Final = "virtio_balloon"

_INITRD: Final = "initrd.gz"
_VERSION_TIMEOUT: Final = 10.0
"""Seconds for a program that does nothing but print a line."""


@dataclass(frozen=True, slots=True)
class UserModeLinux:
    """A kernel and what goes into its guest.

    :ivar kernel: the program.
    :ivar version: of the kernel, as its modules know it.
    :ivar busybox: the guest's tools, linked statically.
    :ivar modules: the balloon driver and what it depends on, in order of loading.
    """

    kernel: Path
    version: str
    busybox: bytes
    modules: tuple[Module, ...]

    @property
    def title(self) -> str:
        """A name for a person."""
        return f"User-Mode Linux {self.version}"

    @property
    def byte_order(self) -> ByteOrder:
        """The host's: the guest's instructions are the host's own."""
        return ByteOrder(sys.byteorder)

    @property
    def page_size(self) -> int:
        """4 KiB: User-Mode Linux has no other (its ``PAGE_SHIFT`` is 12)."""
        return 4096

    @property
    def driver(self) -> str:
        """The module of the kernel's own package."""
        return DRIVER

    def prepare(self, folder: Path, socket: str, memory: int) -> tuple[str, ...]:
        """Write the initramfs and return the command line.

        :raises HostError: if the guest's memory does not fit where the kernel puts it.
        """
        _check_room(memory)
        files = root_files(self.busybox, self.modules)
        (folder / _INITRD).write_bytes(initramfs.pack(files))
        return self._command(socket, memory)

    def use_memory(self, mebibytes: int) -> tuple[str, ...]:
        """Return the one command of our own init."""
        return (f"use {mebibytes}",)

    def _command(self, socket: str, memory: int) -> tuple[str, ...]:
        """Return the command line; all paths in it are relative to the folder.

        The kernel splits at spaces and its transport at colons, and either may be in
        the folder's own path.
        """
        return (
            str(self.kernel),
            f"mem={memory >> 20}M",
            f"initrd={_INITRD}",
            f"virtio_uml.device={socket}:{VIRTIO_ID_BALLOON}",
            "con=null",
            "con0=fd:0,fd:1",
            "quiet",
            # Its control socket would be left in the user's home otherwise.
            "uml_dir=.",
            "umid=guest",
        )


def find_uml() -> UserModeLinux:
    """Find the kernel, its balloon driver and busybox on this machine.

    :raises HostError: with what to install if one is missing.
    """
    kernel = find_program("linux.uml", "user-mode-linux")
    version = _version(kernel)
    return UserModeLinux(
        kernel=kernel,
        version=version,
        busybox=find_busybox(),
        modules=tuple(load_modules(MODULES / version, DRIVER)),
    )


def _version(kernel: Path) -> str:
    try:
        answer = subprocess.run(  # noqa: S603 - the program that is going to be booted
            [kernel, "--version"],
            capture_output=True,
            check=True,
            env={"PATH": os.defpath},
            text=True,
            timeout=_VERSION_TIMEOUT,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(
            f"{kernel} does not tell its version ({error}): reinstall user-mode-linux"
        ) from error
    return answer.stdout.strip()


def _check_room(memory: int) -> None:
    """Refuse a guest that would die of a bus error once its memory's place is full."""
    if not SHARED_MEMORY.is_dir():
        return  # the kernel falls back on /tmp
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < memory:
        raise HostError(
            f"{SHARED_MEMORY} has {free >> 20} MiB free and the guest's memory needs "
            f"{memory >> 20}: give the guest less, or enlarge {SHARED_MEMORY} "
            "(in a container: --shm-size)"
        )
