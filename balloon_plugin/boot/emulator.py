"""Which QEMU is on this machine, and whether it can have a balloon of ours.

Knows the program and what it says of itself; nothing of guests. The device is QEMU's
generic one for vhost-user, which takes the virtio device number as a property. Up to
10.0 it exists, by another name, but users cannot create it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from balloon_plugin.errors import HostError

__all__ = ["DEVICE", "PCI_DEVICE", "Emulator", "find_emulator"]

DEVICE: Final = "vhost-user-test-device"
"""The generic device on whatever virtio bus the machine has: virtio-mmio."""

PCI_DEVICE: Final = f"{DEVICE}-pci"
"""The same as a PCI device."""

OLDEST: Final = (10, 1)

_PATIENCE: Final = 10.0
"""Seconds for a program that does nothing but print some lines."""

_WHERE_FROM: Final = (
    "install QEMU 10.1 or later (on Debian 13: apt install -t trixie-backports "
    "qemu-system), or name another with --qemu"
)


@dataclass(frozen=True, slots=True)
class Emulator:
    """A QEMU that can have the balloon.

    :ivar command: the program by its full path, and the arguments that go first.
    :ivar version: its version, for people.
    """

    command: tuple[str, ...]
    version: str


def find_emulator(command: str, device: str) -> Emulator:
    """Find a QEMU and make sure that it is new enough.

    :param command: the program, by name or path, and arguments to begin with, as one
        would write them in a shell.
    :param device: the device that it must have.
    :raises HostError: if it is not there, too old or lacks the device; says what to do.
    """
    words = _resolve(command)
    found = re.search(
        r"QEMU emulator version ((\d+)\.(\d+)\S*)", _ask(words, "-version")
    )
    if found is None:
        raise HostError(f"{words[0]} does not say which QEMU it is: {_WHERE_FROM}")
    version = found[1]
    if (int(found[2]), int(found[3])) < OLDEST:
        raise HostError(
            f"{words[0]} is QEMU {version}, which has no {DEVICE} for users: "
            f"{_WHERE_FROM}"
        )
    if f'name "{device}"' not in _ask(words, "-machine", "none", "-device", "help"):
        raise HostError(
            f"{words[0]} (QEMU {version}) was built without {device}: {_WHERE_FROM}"
        )
    return Emulator(words, version)


def _resolve(command: str) -> tuple[str, ...]:
    """Split a command; its program is started in another folder, so by full path."""
    try:
        program, *rest = shlex.split(command)
    except ValueError as error:
        raise HostError(f"{command!r} is not the name of a program") from error
    found = shutil.which(program)
    if found is None:
        raise HostError(f"{program} is not on this machine: {_WHERE_FROM}")
    return os.path.abspath(found), *rest  # noqa: PTH100 - resolves no links


def _ask(words: Sequence[str], *question: str) -> str:
    try:
        answer = subprocess.run(  # noqa: S603 - the program that is going to be started
            [*words, *question],
            capture_output=True,
            check=True,
            env={"PATH": os.defpath},
            text=True,
            timeout=_PATIENCE,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"{words[0]} does not work ({error}): {_WHERE_FROM}") from error
    return answer.stdout
