"""Programs of this machine that a guest needs, and what to install for them."""

from __future__ import annotations

import shutil
import struct
import sys
from pathlib import Path
from typing import Final

from balloon_plugin.errors import HostError

__all__ = ["find_busybox", "find_program"]

_PT_INTERP: Final = 3


def find_program(program: str, package: str) -> Path:
    """Find a program.

    :param package: of Debian, which has it.
    :raises HostError: if it is not there; says what to install.
    """
    found = shutil.which(program)
    if found is None:
        raise HostError(
            f"{program} is not on this machine: install it (on Debian and its "
            f"relatives: apt install {package})"
        )
    return Path(found)


def find_busybox() -> bytes:
    """Return the program that is all of a guest's tools, linked statically.

    :raises HostError: if it is not there, or needs libraries; says what to install.
    """
    path = find_program("busybox", "busybox-static")
    try:
        program = path.read_bytes()
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror}") from error
    if _needs_interpreter(program):
        raise HostError(
            f"{path} needs libraries that the guest does not have: install the static "
            "one (on Debian and its relatives: apt install busybox-static)"
        )
    return program


def _needs_interpreter(program: bytes) -> bool:
    """Say whether a 64-bit ELF program has a PT_INTERP header: a dynamic linker."""
    order = "<" if sys.byteorder == "little" else ">"
    if not program.startswith(b"\x7fELF\x02"):
        return False
    (start,) = struct.unpack_from(f"{order}Q", program, 0x20)
    size, count = struct.unpack_from(f"{order}HH", program, 0x36)
    kinds = (
        struct.unpack_from(f"{order}I", program, start + index * size)[0]
        for index in range(count)
    )
    return _PT_INTERP in kinds
