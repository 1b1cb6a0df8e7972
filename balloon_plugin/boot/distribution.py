"""A distribution's kernel, and the root file system that makes a guest of it.

The kernel and its modules are taken as they were installed; what runs in the guest are
this machine's own busybox and our init. So the guest's CPU is of this machine's kind.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from balloon_plugin.boot import initramfs
from balloon_plugin.boot.init import root_files
from balloon_plugin.boot.modules import load_modules
from balloon_plugin.boot.programs import find_busybox
from balloon_plugin.errors import HostError

__all__ = ["pack_root"]

MODULES: Final = Path("/lib/modules")
_IMAGE: Final = "vmlinuz-"


def pack_root(
    kernel: Path, folder: Path | None, names: Sequence[str], arch: str
) -> bytes:
    """Return the initial RAM file system of a guest for a kernel.

    :param kernel: its image. One called ``vmlinuz-VERSION`` says where its modules are.
    :param folder: the modules, if they are elsewhere.
    :param names: of the modules that the guest needs; the last is its balloon driver,
        which it does not load before it is told to.
    :param arch: QEMU's name for the guest's architecture.
    :raises HostError: if something is missing; says what to do.
    """
    if arch != platform.machine():
        raise HostError(
            f"a guest of {arch} cannot run the programs of this machine "
            f"({platform.machine()}): give it an --initrd of its own"
        )
    folder = folder or _folder_of(kernel)
    needed = [load_modules(folder, name) for name in names]
    modules = dict.fromkeys(module for each in needed for module in each)
    built_in = "" if needed[-1] else names[-1]
    return initramfs.pack(root_files(find_busybox(), list(modules), built_in))


def _folder_of(kernel: Path) -> Path:
    if not kernel.name.startswith(_IMAGE):
        raise HostError(
            f"{kernel.name} does not say which kernel it is, as {_IMAGE}VERSION does: "
            "name the folder of its modules with --modules"
        )
    return MODULES / kernel.name.removeprefix(_IMAGE)
