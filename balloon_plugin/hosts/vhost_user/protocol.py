"""The back end's half of vhost-user: bytes of the front end in, effects out.

Pure: no socket, clock, mapping or device. :meth:`Protocol.receive` never raises,
whatever the bytes are. What came of them is a :class:`Turn`: effects for the connection
to carry out, and if need be a sentence about what makes no sense in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from balloon_plugin.events import ByteOrder
from balloon_plugin.hosts.vhost_user import messages, payloads
from balloon_plugin.hosts.vhost_user.effects import (
    Effect,
    ReplyConfig,
    ReplyInflight,
    Resume,
)
from balloon_plugin.hosts.vhost_user.messages import Message, NonsenseError
from balloon_plugin.hosts.vhost_user.payloads import Inflight
from balloon_plugin.hosts.vhost_user.requests import TRANSPORT, Requests
from balloon_plugin.layouts import (
    DEVICE_FEATURES_MASK,
    VhostUserBackendRequest,
    VhostUserProtocolFeature,
    VhostUserRequest,
)

__all__ = ["Protocol", "Turn"]

_R = VhostUserRequest
_P = VhostUserProtocolFeature


@dataclass(frozen=True, slots=True)
class Turn:
    """What one message leads to.

    :ivar effects: what to do, in order. If one cannot be done, the rest are left out.
    :ivar fds: all file descriptors that came; those that no effect took are closed.
    :ivar code: the request, for the acknowledgement.
    :ivar acknowledge: whether the front end waits for an acknowledgement.
    :ivar problem: what makes no sense, a sentence, or nothing.
    :ivar fatal: whether the connection cannot go on.
    """

    effects: tuple[Effect, ...] = ()
    fds: tuple[int, ...] = ()
    code: int = 0
    acknowledge: bool = False
    problem: str = ""
    fatal: bool = False

    def acknowledgement(self, *, success: bool) -> bytes:
        """Return the reply to send after all was done, or nothing."""
        if not self.acknowledge:
            return b""
        return messages.reply(self.code, payloads.pack_number(0 if success else 1))


class Protocol:
    """One connection of a front end.

    :param byte_order: of the guest's CPU if it is known, else that of this machine.
    :param parked: the session of an earlier connection that may go on on this one.
    """

    def __init__(
        self, byte_order: ByteOrder | None = None, parked: Resume | None = None
    ) -> None:
        self._stream = messages.Assembler()
        self._requests = Requests(byte_order or payloads.NATIVE, parked)

    # --- bytes in -------------------------------------------------------------------

    @property
    def wanted(self) -> int:
        """How many bytes to read next; one more would be of another message."""
        return self._stream.wanted

    def receive(self, data: bytes, fds: Sequence[int], now: float) -> Turn | None:
        """Take bytes of the front end; return what a message that ends in them does."""
        self._requests.now = now
        try:
            message = self._stream.feed(data, fds)
        except messages.BrokenStreamError as error:
            return Turn(fds=self._stream.fds, problem=str(error), fatal=True)
        return None if message is None else self._turn(message)

    def _turn(self, message: Message) -> Turn:
        waits = message.needs_reply and message.code not in messages.ANSWERED
        row = Requests.HANDLERS.get(message.code)
        if row is None:
            problem = f"{message.name} is not supported"
            return Turn((), message.fds, message.code, waits, problem)
        needs, handler = row
        try:
            self._check(message, needs)
            effects = tuple(handler(self._requests, message))
        except NonsenseError as error:
            # A front end that cannot be told believes that a queue or its memory is
            # set, so the connection ends.
            problem, fatal = str(error), not waits
            return Turn((), message.fds, message.code, waits, problem, fatal)
        return Turn(effects, message.fds, message.code, waits)

    def _check(self, message: Message, needs: VhostUserProtocolFeature | None) -> None:
        problem = messages.misfit(message)
        if problem:
            raise NonsenseError(problem)
        if needs is not None and not self._requests.has(needs):
            raise NonsenseError(f"{message.name} came without {needs.name} negotiated")

    # --- answers of the device and the host -----------------------------------------

    def features_reply(self, device: int) -> bytes:
        """Return the reply to :class:`ReplyFeatures`."""
        bits = payloads.pack_number(device & DEVICE_FEATURES_MASK | TRANSPORT)
        return messages.reply(_R.GET_FEATURES, bits)

    def config_reply(self, effect: ReplyConfig, data: bytes) -> bytes:
        """Return the reply to a :class:`ReplyConfig` that the device answered."""
        self._requests.config_seen(effect.offset, data)
        access = payloads.pack_config(effect.offset, effect.flags, data)
        return messages.reply(_R.GET_CONFIG, access)

    def base_reply(self, index: int, base: int) -> bytes:
        """Return the reply to a :class:`ReplyBase`."""
        state = payloads.pack_vring_state(index, base)
        return messages.reply(_R.GET_VRING_BASE, state)

    def inflight_reply(self, effect: ReplyInflight, described: Inflight) -> bytes:
        """Return the reply to a :class:`ReplyInflight`, but for the descriptor."""
        payload = payloads.pack_inflight(described, effect.size)
        return messages.reply(_R.GET_INFLIGHT_FD, payload)

    def check_reply(self, *, success: bool) -> bytes:
        """Return the reply to a :class:`CheckState`."""
        return messages.reply(
            _R.CHECK_DEVICE_STATE, payloads.pack_number(0 if success else 1)
        )

    def config_change(self) -> bytes:
        """Return the request that announces a change of the configuration, or nothing.

        It goes to the backend channel and asks for no reply: there is nothing that we
        would do with one.
        """
        if not (self._requests.has(_P.BACKEND_REQ) and self._requests.has(_P.CONFIG)):
            return b""
        return messages.backend_request(VhostUserBackendRequest.CONFIG_CHANGE_MSG)

    def config_seen(self, offset: int, data: bytes) -> None:
        """Note what the front end must think that the configuration space is."""
        self._requests.config_seen(offset, data)

    def needs_reset(self) -> None:
        """Show DEVICE_NEEDS_RESET from now on, until the driver resets the device."""
        self._requests.needs_reset()

    # --- the session ----------------------------------------------------------------

    @property
    def parked(self) -> bool:
        """Whether a session is still parked, and nobody knows yet if it goes on."""
        return self._requests.parked

    @property
    def going(self) -> Resume | None:
        """What it takes to go on with this session, or ``None`` if there is none."""
        return self._requests.going

    def park(self, parked: Resume) -> None:
        """Note that a session came along, which goes on with the next start."""
        self._requests.park(parked)

    # --- time, and the end ----------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When :meth:`settle` should be called at the latest, or ``None``."""
        return self._requests.deadline

    def settle(self, now: float) -> tuple[Effect, ...]:
        """Return what is due because time passed."""
        return tuple(self._requests.settle(now))

    def end(self) -> tuple[Effect, ...]:
        """Return what the device must be told when the front end goes."""
        return tuple(self._requests.end())
