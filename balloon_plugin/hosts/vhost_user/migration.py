"""A guest that moves: its session goes to another daemon, or comes from one.

The front end asks for a transfer (SET_DEVICE_STATE_FD) and later how it went
(CHECK_DEVICE_STATE), which may be before it has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from balloon_plugin.errors import HostError
from balloon_plugin.hosts.vhost_user.effects import Resume
from balloon_plugin.hosts.vhost_user.files import RefusalError
from balloon_plugin.hosts.vhost_user.keeper import Keeper
from balloon_plugin.hosts.vhost_user.loop import Loop
from balloon_plugin.hosts.vhost_user.protocol import Protocol
from balloon_plugin.hosts.vhost_user.transfer import Transfer
from balloon_plugin.hosts.vhost_user.wire import Wire

__all__ = ["Migration"]

_log = logging.getLogger(__name__)


class Migration:
    """The transfers of one connection, of which there is one at a time.

    :param name: of the guest, for the log.
    :param wire: to the front end.
    :param protocol: what it was told and is to be told.
    :param keeper: has the session, and takes one in.
    :param loop: calls back.
    :param done: is called when a transfer has ended, with what :meth:`finish` is to be
        told in a turn of the front end.
    """

    def __init__(
        self,
        name: str,
        wire: Wire,
        protocol: Protocol,
        keeper: Keeper,
        loop: Loop,
        done: Callable[[bytes | None], None],
    ) -> None:
        self._name = name
        self._wire = wire
        self._protocol = protocol
        self._keeper = keeper
        self._loop = loop
        self._done = done
        self._transfer: Transfer | None = None
        self._loading = False
        self._succeeded: bool | None = False  # None as long as nobody knows
        self._check_due = False

    def save(self, fd: int) -> None:
        """Begin to send the session.

        :raises RefusalError: if the pipe is of no use.
        """
        self._begin(fd, self._keeper.export())

    def load(self, fd: int) -> None:
        """Begin to take a session in.

        :raises RefusalError: if the pipe is of no use.
        """
        self._begin(fd, None)

    def check(self) -> None:
        """Tell how the transfer went, now or when it has ended."""
        self._check_due = self._succeeded is None
        if self._succeeded is not None:
            self._wire.send(self._protocol.check_reply(success=self._succeeded))

    def finish(self, result: bytes | None) -> None:
        """Learn what a transfer came to."""
        self._succeeded = self._take_in(result) if self._loading else result is not None
        self._keeper.keep()
        if self._check_due:
            self.check()

    def end(self) -> None:
        """Give up a transfer that is under way."""
        if self._transfer is not None:
            self._transfer.close()
        self._transfer, self._succeeded = None, False

    def _begin(self, fd: int, data: bytes | None) -> None:
        self.end()
        try:
            self._transfer = Transfer(fd, self._loop, data, self._done)
        except OSError as error:
            raise RefusalError(f"the state's channel is of no use: {error}") from error
        self._wire.own(fd)
        self._loading, self._succeeded = data is None, None

    def _take_in(self, data: bytes | None) -> bool:
        try:
            session = self._keeper.take_in(data or b"")
        except HostError as error:
            _log.warning("%s: no session came with the guest: %s", self._name, error)
            return False
        if session is not None:
            self._protocol.park(Resume(session.features, session.ready))
        return True
