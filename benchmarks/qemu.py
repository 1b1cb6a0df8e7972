"""QEMU without a guest: its devices are driven from here, through its qtest channel.

The driver's side is the same as for our device alone: RAM is a memfd, which this
process maps as well. The registers are those of virtio-mmio (VIRTIO 1.3 §4.2.2).
"""

from __future__ import annotations

import contextlib
import mmap
import subprocess
import time
from pathlib import Path

from machine import QUEUE_SIZE, Driver
from rivals import pages_of

RAM_START = 0x4000_0000
_TRANSPORTS = [0x0A00_0000 + number * 0x200 for number in range(32)]
_BALLOON = 5
_DEVICE_ID, _FEATURES, _FEATURES_SEL = 0x008, 0x020, 0x024
_QUEUE_SEL, _QUEUE_NUM, _QUEUE_READY, _QUEUE_NOTIFY = 0x030, 0x038, 0x044, 0x050
_STATUS, _DESC, _AVAIL, _USED = 0x070, 0x080, 0x090, 0x0A0
_ACKNOWLEDGED, _FEATURES_OK, _DRIVER_OK = 3, 8, 4


def processor_seconds(pids):
    """Return what all threads of processes had of the processor so far."""
    threads = [stat for pid in pids for stat in Path(f"/proc/{pid}/task").iterdir()]
    times = [(thread / "schedstat").read_text().split()[0] for thread in threads]
    return sum(map(int, times)) / 1e9


class Qemu:
    """A virt machine of QEMU whose processor never runs.

    :param command: ``qemu-system-aarch64``, as a list of words.
    :param ram: bytes of RAM.
    :param device: what to plug, with its options.
    """

    def __init__(self, command, ram, device, *options):
        self._process = subprocess.Popen(  # noqa: S603 - what the user named
            [
                *(*command, "-M", "virt,memory-backend=ram", "-m", f"{ram >> 20}M"),
                # Debian's QEMU has its accelerator "qtest" in another folder.
                *("-accel", "tcg", "-cpu", "cortex-a57,start-powered-off=on"),
                *("-nodefaults", "-display", "none"),
                *("-object", f"memory-backend-memfd,id=ram,size={ram},share=on"),
                *("-global", "virtio-mmio.force-legacy=off", "-device", device),
                *("-qtest", "stdio", "-qtest-log", "none", *options),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._at = next(at for at in _TRANSPORTS if self._is_balloon(at))
        self.pid = self._process.pid
        self._ram = self._open_ram()
        self.driver = Driver(mmap.mmap(self._ram.fileno(), ram), RAM_START)
        self._start()

    def kick(self, queue, *others):
        """Kick a queue, and wait until all its buffers are back.

        :param others: processes that have a part in the device.
        :returns: seconds of the processor that QEMU and the others took.
        """
        pids = self.pid, *others
        before = processor_seconds(pids)
        self._write(_QUEUE_NOTIFY, queue)
        while not self.driver.answered(queue):
            time.sleep(1e-4)
        return processor_seconds(pids) - before

    def pages(self):
        """Return how many pages of RAM exist."""
        return pages_of(self._ram.fileno())

    def close(self):
        """End QEMU."""
        self._ram.close()
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def _start(self):
        """Do what a driver does to start the device with its first two queues."""
        self._write(_STATUS, 0)
        self._write(_STATUS, _ACKNOWLEDGED)
        for word, features in enumerate((0, 1)):  # VERSION_1 alone
            self._write(_FEATURES_SEL, word)
            self._write(_FEATURES, features)
        self._write(_STATUS, _ACKNOWLEDGED | _FEATURES_OK)
        for queue in (0, 1):
            self._write(_QUEUE_SEL, queue)
            self._write(_QUEUE_NUM, QUEUE_SIZE)
            places = (_DESC, _AVAIL, _USED)
            for place, at in zip(places, self.driver.ring(queue), strict=True):
                self._write(place, at & 0xFFFFFFFF)
                self._write(place + 4, at >> 32)
            self._write(_QUEUE_READY, 1)
        self._write(_STATUS, _ACKNOWLEDGED | _FEATURES_OK | _DRIVER_OK)

    def _is_balloon(self, at):
        return int(self._ask(f"readl {at + _DEVICE_ID:#x}"), 0) == _BALLOON

    def _write(self, register, value):
        self._ask(f"writel {self._at + register:#x} {value:#x}")

    def _ask(self, line):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().split()
        assert answer[:1] == ["OK"], answer
        return answer[-1]

    def _open_ram(self):
        """Open the memfd of QEMU's RAM."""
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(entry.readlink()).startswith("/memfd:"):
                    return entry.open("r+b")
        raise AssertionError("QEMU has no memfd")
