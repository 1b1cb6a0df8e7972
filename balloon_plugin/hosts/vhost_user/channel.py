"""The channel on which a back end sends requests of its own: one, CONFIG_CHANGE_MSG."""

from __future__ import annotations

import os

from balloon_plugin.hosts.vhost_user import doorbells
from balloon_plugin.hosts.vhost_user.files import RefusalError
from balloon_plugin.hosts.vhost_user.protocol import Protocol

__all__ = ["BackendChannel"]


class BackendChannel:
    """The backend channel of one connection; without one, nobody is told anything.

    :param protocol: knows what was negotiated.

    :ivar announced: how often a change was announced.
    """

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._fd: int | None = None
        self.announced = 0

    def replace(self, fd: int) -> None:
        """Send to another file descriptor from now on, which is ours then.

        :raises RefusalError: if it is of no use; it stays the caller's.
        """
        try:
            doorbells.check(fd)
        except OSError as error:
            raise RefusalError(f"the backend channel is of no use: {error}") from error
        self.close()
        self._fd = fd

    @property
    def unread(self) -> bool:
        """Whether the front end has yet to read what was sent."""
        return self._fd is not None and doorbells.is_unread(self._fd)

    def announce(self) -> None:
        """Announce a change of the configuration space, if that was negotiated.

        What was not read yet will be, and is as good as another.
        """
        request = self._protocol.config_change()
        if self._fd is not None and request:
            self.announced += 1
            doorbells.drain(self._fd)
            if not self.unread:
                doorbells.post(self._fd, request)

    def close(self) -> None:
        """Let go of the channel."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None
