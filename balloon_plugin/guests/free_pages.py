"""What a driver tells of its kernel's free pages: reports, and hints when asked to.

Both are about whole blocks of the buddy allocator, in parts that the device may write
to. Linux puts up to 32 blocks of a report into one buffer, and here each has one of its
own; nothing else is different. Features and defaults of Linux 6.12:
``virtballoon_free_page_report`` and ``mm/page_reporting.c``, ``report_free_page_func``.
"""

from __future__ import annotations

from typing import Final

from balloon_plugin.guests.access import ConfigSpace
from balloon_plugin.guests.channel import Channel
from balloon_plugin.guests.form import RingForm
from balloon_plugin.guests.kernel import Kernel
from balloon_plugin.guests.steps import Steps
from balloon_plugin.guests.transport import Transport
from balloon_plugin.layouts import HintCommand

__all__ = ["Hinter", "Reporter"]

DELAY: Final = 2.0
"""Seconds between two looks for free blocks (``PAGE_REPORTING_DELAY``)."""

AT_ONCE: Final = 32
"""Blocks in one report (``PAGE_REPORTING_CAPACITY``)."""

_ID_SIZE: Final = 4


class Reporter:
    """Free page reporting of one driver: each block once, as long as it stays free.

    :param transport: the bus to the device.
    :param kernel: whose pages they are.
    :param index: the queue's number.
    :param form: of its ring.
    """

    def __init__(
        self, transport: Transport, kernel: Kernel, index: int, form: RingForm
    ) -> None:
        self._transport = transport
        self._kernel = kernel
        self._channel = Channel(transport, kernel, index, form, _ID_SIZE)
        self._due = transport.now() + DELAY
        self._reported: set[tuple[int, int]] = set()

    def work(self) -> Steps[None]:
        """Report blocks that have become free since the last time, if it is time."""
        if self._transport.now() < self._due:
            return
        self._due = self._transport.now() + DELAY
        free = set(self._kernel.free_blocks())
        fresh = sorted(free - self._reported)
        self._reported = free
        most = min(AT_ONCE, self._channel.size)
        for at in range(0, len(fresh), most):
            yield from self._channel.lend(fresh[at : at + most])


class Hinter:
    """Free page hinting of one driver.

    It does not keep the pages from its kernel until it is told that hints are done,
    which a driver may do at any time (VIRTIO 1.3 §5.5.6.5.1), and Linux does when
    memory is short.

    :param transport: the bus to the device.
    :param config: the same for its configuration space.
    :param kernel: whose pages they are.
    :param index: the queue's number.
    :param form: of its ring, in whose byte order commands are as well.
    """

    def __init__(
        self,
        transport: Transport,
        config: ConfigSpace,
        kernel: Kernel,
        index: int,
        form: RingForm,
    ) -> None:
        self._config = config
        self._kernel = kernel
        self._order = form.order
        self._channel = Channel(transport, kernel, index, form, _ID_SIZE)
        self._done: int = HintCommand.VIRTIO_BALLOON_CMD_ID_STOP

    def look(self) -> Steps[None]:
        """Read the command, after a config interrupt, and obey a new one."""
        data = yield from self._config.read("free_page_hint_cmd_id")
        command = int.from_bytes(data, "little")
        if command in (self._done, *HintCommand):
            return
        self._done = command
        yield from self._say(command)
        for block in self._kernel.free_blocks():
            yield from self._channel.lend([block])
        yield from self._say(HintCommand.VIRTIO_BALLOON_CMD_ID_STOP)

    def _say(self, command: int) -> Steps[None]:
        yield from self._channel.tell(command.to_bytes(_ID_SIZE, self._order.value))
