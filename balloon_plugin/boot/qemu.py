"""QEMU: guests of any byte order and page size, emulated instruction by instruction.

Neither KVM nor root rights are needed. The kernel is the user's; what runs in it is
made of this machine's programs, or the user's, too: whatever obeys the commands of
:mod:`~balloon_plugin.boot.guest` on its console. The guests that the project builds for
its tests do.
"""

from __future__ import annotations

import enum
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from balloon_plugin.boot.distribution import pack_root
from balloon_plugin.boot.emulator import DEVICE, PCI_DEVICE, Emulator, find_emulator
from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder
from balloon_plugin.layouts import VIRTIO_BALLOON_CONFIG, VIRTIO_ID_BALLOON, Queue

__all__ = ["BOARDS", "Board", "Qemu", "QemuOptions", "Transport", "find_qemu"]

QUEUES: Final = len(Queue)
"""As many as a balloon can have. QEMU has to be told, and one that a driver looks for
and does not find is the end of its probe; one that it leaves alone costs nothing."""

_INITRD: Final = "initrd.gz"

QUEUE_SIZE: Final = 128
"""Entries of a queue, as QEMU's own balloon has."""


class Transport(enum.Enum):
    """How the guest finds the device, and what it is told of it."""

    LEGACY = "legacy"
    """virtio-mmio without VERSION_1: all that drivers before Linux 3.19 know."""

    MODERN = "modern"
    """virtio-mmio with VERSION_1."""

    PCI = "pci"
    """virtio-pci with VERSION_1."""


@dataclass(frozen=True, slots=True)
class Board:
    """What suits most guests of one architecture.

    :ivar machine: QEMU's ``-machine``.
    :ivar cpu: QEMU's ``-cpu``.
    :ivar console: the kernel's name for the first serial port.
    :ivar transport: one that the machine has.
    """

    machine: str
    cpu: str
    console: str
    transport: Transport


_BUSES: Final = {
    Transport.LEGACY: "virtio_mmio",
    Transport.MODERN: "virtio_mmio",
    Transport.PCI: "virtio_pci",
}
"""The kernel's module for each."""

BOARDS: Final = {
    # Both byte orders, and the fewest features to emulate of those with 64-bit kernels.
    "aarch64": Board("virt", "cortex-a57", "ttyAMA0", Transport.LEGACY),
    "x86_64": Board("q35", "qemu64", "ttyS0", Transport.PCI),
}
"""What is booted for each architecture, if the user does not say otherwise."""


@dataclass(frozen=True, slots=True)
class QemuOptions:
    """What a user may choose; ``None`` is what the architecture's board has.

    :ivar kernel: the kernel's image.
    :ivar initrd: its initial RAM file system; one is made if there is none.
    :ivar modules: the kernel's, for the one that is made.
    :ivar arch: QEMU's name for the architecture.
    :ivar command: QEMU and arguments to begin with, as in a shell.
    :ivar machine: QEMU's ``-machine``.
    :ivar cpu: QEMU's ``-cpu``.
    :ivar append: more for the kernel's command line.
    :ivar transport: how the guest finds its balloon.
    :ivar driver: the module that the guest loads, ``NAME[:PARAMETER=VALUE,...]``.
    :ivar byte_order: of the guest's CPU, if the host is to know.
    :ivar page_size: of the guest's kernel, if the host is to know.
    """

    kernel: Path
    initrd: Path | None = None
    modules: Path | None = None
    arch: str = platform.machine()
    command: str | None = None
    machine: str | None = None
    cpu: str | None = None
    append: str = ""
    transport: Transport | None = None
    driver: str = "virtio_balloon"
    byte_order: ByteOrder | None = None
    page_size: int | None = None


@dataclass(frozen=True, slots=True)
class Qemu:
    """A QEMU and what it boots."""

    emulator: Emulator
    options: QemuOptions
    board: Board
    root: bytes | None = None
    """The initial RAM file system, if it is not the user's."""

    @property
    def title(self) -> str:
        """A name for a person."""
        return f"{self.options.kernel.name} in QEMU {self.emulator.version}"

    @property
    def byte_order(self) -> ByteOrder | None:
        """What the user said: QEMU boots either on one machine."""
        return self.options.byte_order

    @property
    def page_size(self) -> int | None:
        """What the user said: only the kernel knows."""
        return self.options.page_size

    @property
    def driver(self) -> str:
        """The module to load, and its parameters."""
        name, _, parameters = self.options.driver.partition(":")
        return f"{name} {parameters.replace(',', ' ')}".rstrip()

    def prepare(self, folder: Path, socket: str, memory: int) -> tuple[str, ...]:
        """Write what was made for the guest and return the command line."""
        options, mebibytes = self.options, memory >> 20
        initrd = options.initrd.absolute() if options.initrd else _INITRD
        if self.root is not None:
            (folder / _INITRD).write_bytes(self.root)
        return (
            *self.emulator.command,
            *("-machine", f"{self.board.machine},memory-backend=mem"),
            *("-cpu", self.board.cpu),
            *("-accel", "tcg"),
            *("-m", f"{mebibytes}M"),
            # Only what is shared can be seen, and given back, by another process.
            *("-object", f"memory-backend-memfd,id=mem,size={mebibytes}M,share=on"),
            *("-no-user-config", "-nodefaults", "-display", "none"),
            *("-kernel", str(options.kernel.absolute())),
            *("-initrd", str(initrd)),
            *("-append", self._kernel_command_line()),
            *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
            *("-chardev", f"socket,id=balloon,path={socket}"),
            *self._device(),
        )

    def use_memory(self, mebibytes: int) -> tuple[str, ...]:
        """Return the commands that every guest knows."""
        return f"alloc {mebibytes}", "free"

    def _kernel_command_line(self) -> str:
        # Without a driver: the story has it loaded when the guest has used its memory.
        own = f"console={self.board.console} rdinit=/init drv=none quiet"
        return f"{own} {self.options.append}".rstrip()

    def _device(self) -> tuple[str, ...]:
        transport = self.board.transport
        properties = (
            f"chardev=balloon,virtio-id={VIRTIO_ID_BALLOON},num_vqs={QUEUES},"
            f"vq_size={QUEUE_SIZE},config_size={VIRTIO_BALLOON_CONFIG.size}"
        )
        device = ("-device", f"{_device_of(transport)},{properties}")
        if transport is Transport.PCI:
            return device
        legacy = "on" if transport is Transport.LEGACY else "off"
        return "-global", f"virtio-mmio.force-legacy={legacy}", *device


def find_qemu(options: QemuOptions) -> Qemu:
    """Find a QEMU for these options, and see that there is something to boot.

    :raises HostError: if anything is missing, with what to do about it.
    """
    for path in filter(None, (options.kernel, options.initrd)):
        _check_file(path)
    board = _board(options)
    command = options.command or f"qemu-system-{options.arch}"
    emulator = find_emulator(command, _device_of(board.transport))
    root = None if options.initrd else _made_root(options, board)
    return Qemu(emulator, options, board, root)


def _made_root(options: QemuOptions, board: Board) -> bytes:
    driver = options.driver.partition(":")[0]
    names = _BUSES[board.transport], driver
    return pack_root(options.kernel, options.modules, names, options.arch)


def _board(options: QemuOptions) -> Board:
    """Return the architecture's board with all that the user chose in its place."""
    usual = BOARDS.get(options.arch)
    if usual is None:
        raise HostError(
            f"no machine is known for {options.arch}: choose one of {', '.join(BOARDS)}"
        )
    return Board(
        options.machine or usual.machine,
        options.cpu or usual.cpu,
        usual.console,
        options.transport or usual.transport,
    )


def _device_of(transport: Transport) -> str:
    return PCI_DEVICE if transport is Transport.PCI else DEVICE


def _check_file(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror}") from error
