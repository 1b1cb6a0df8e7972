"""What each request of the front end does: a table of handlers over one state.

Sections in quotes are those of QEMU's ``docs/interop/vhost-user.rst``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final, TypeAlias

from balloon_plugin.events import ByteOrder
from balloon_plugin.hosts.vhost_user import messages, payloads
from balloon_plugin.hosts.vhost_user.config_writes import ConfigWrites
from balloon_plugin.hosts.vhost_user.effects import (
    AddMemory,
    CheckState,
    Effect,
    LoadState,
    LogDiscards,
    Notifier,
    RemoveMemory,
    Reply,
    ReplyBase,
    ReplyConfig,
    ReplyFeatures,
    ReplyInflight,
    Resume,
    SaveState,
    SetBackendChannel,
    SetConfig,
    SetInflight,
    SetLog,
    SetLogNotifier,
    SetMemory,
    SetNotifier,
    StartQueue,
)
from balloon_plugin.hosts.vhost_user.messages import Message, NonsenseError
from balloon_plugin.hosts.vhost_user.rings import MAX_QUEUES, Rings
from balloon_plugin.hosts.vhost_user.session import Phase, Session
from balloon_plugin.layouts import (
    DEVICE_FEATURES_MASK,
    VIRTQUEUE_MAX_SIZE,
    Feature,
    Status,
    TransferDirection,
    VhostUserProtocolFeature,
    VhostUserRequest,
)
from balloon_plugin.virtqueue import RING_FEATURES

__all__ = ["MAX_MEMORY_SLOTS", "OFFERED_PROTOCOL", "TRANSPORT", "Requests"]

TRANSPORT: Final = (
    RING_FEATURES
    | Feature.VHOST_F_LOG_ALL.mask
    | Feature.VHOST_USER_F_PROTOCOL_FEATURES.mask
    | Feature.VIRTIO_F_VERSION_1.mask
)
"""Features offered besides the device's own."""

_R = VhostUserRequest
_P = VhostUserProtocolFeature

OFFERED_PROTOCOL: Final = (
    _P.MQ.mask
    | _P.LOG_SHMFD.mask
    | _P.REPLY_ACK.mask
    | _P.BACKEND_REQ.mask
    | _P.CROSS_ENDIAN.mask
    | _P.CONFIG.mask
    | _P.INFLIGHT_SHMFD.mask
    | _P.RESET_DEVICE.mask
    | _P.CONFIGURE_MEM_SLOTS.mask
    | _P.STATUS.mask
    | _P.DEVICE_STATE.mask
)
"""Protocol features offered to every front end."""

MAX_MEMORY_SLOTS: Final = 128
"""Regions of guest memory, at two file descriptors each.

QEMU has a DIMM slot or a memory device for each; 128 leave the usual limit of 1,024
descriptors far enough away.
"""


_LOG_ALL = Feature.VHOST_F_LOG_ALL.mask

_NO_FD = 0x100
_FAILURE = 1
"""Of the reply to SET_DEVICE_STATE_FD: we keep to the front end's channel."""


def _reply_number(message: Message, value: int) -> Reply:
    return Reply(messages.reply(message.code, payloads.pack_number(value)))


class Requests:
    """The state of one connection, and a handler for each request.

    Handlers return what is to be done, in order, and raise ``NonsenseError`` if the
    request makes no sense; nothing has changed then.

    :param byte_order: of the guest's CPU.
    :param parked: the session that may go on.
    :ivar negotiated: protocol features that both sides agreed on.
    """

    def __init__(self, byte_order: ByteOrder, parked: Resume | None = None) -> None:
        self.negotiated = 0
        self.now = 0.0
        """The time of the request that is handled."""
        self._session = Session(parked)
        self._rings = Rings(self._session, byte_order)
        self._writes = ConfigWrites()
        self._writes_of = self._session.number
        self._status = 0
        self._lost: int | None = None
        self._logs = False

    # --- what the connection tells --------------------------------------------------

    def has(self, feature: VhostUserProtocolFeature) -> bool:
        """Return whether a protocol feature was negotiated."""
        return bool(self.negotiated & feature.mask)

    @property
    def parked(self) -> bool:
        """Whether a session is still parked, and nobody knows yet if it goes on."""
        return self._session.parked

    @property
    def going(self) -> Resume | None:
        """What it takes to go on with this session, or ``None`` if there is none."""
        return self._session.going

    def park(self, parked: Resume) -> None:
        """Note that a session came along, which goes on with the next start."""
        self._session.park(parked)

    def config_seen(self, offset: int, data: bytes) -> None:
        """Note what the front end was told of the configuration space."""
        self._writes.seen(offset, data)

    def needs_reset(self) -> None:
        """Show DEVICE_NEEDS_RESET from now on, until the driver resets the device."""
        self._lost = self._session.number

    @property
    def deadline(self) -> float | None:
        """When :meth:`settle` has something to say, or ``None``."""
        # A guest that is paused in the middle of a field has all the time in the world.
        live = self._session.phase is Phase.LIVE
        return self._writes_now().deadline if live else None

    def settle(self, now: float) -> list[Effect]:
        """Return what is due because time passed."""
        live = self._session.phase is Phase.LIVE
        writes = self._writes_now().settle(now) if live else []
        return [SetConfig(*write) for write in writes]

    def end(self) -> list[Effect]:
        """Return what the device must be told when the front end goes."""
        return self._session.end()

    # --- negotiation ----------------------------------------------------------------

    def _nothing(self, _message: Message) -> list[Effect]:
        return []

    def _get_features(self, _message: Message) -> list[Effect]:
        return [ReplyFeatures()]

    def _set_features(self, message: Message) -> list[Effect]:
        features = payloads.number(message.payload)
        surplus = features & ~DEVICE_FEATURES_MASK & ~TRANSPORT
        if surplus:
            raise NonsenseError(f"SET_FEATURES has bits never offered: {surplus:#x}")
        # The front end's own, which may come and go while the device runs.
        logs, features = bool(features & _LOG_ALL), features & ~_LOG_ALL
        if self._rings.running and features != self._session.features:
            raise NonsenseError("SET_FEATURES changes features of a running device")
        self._session.accept(features)
        if logs == self._logs:
            return []
        self._logs = logs
        return [LogDiscards(logs)]

    def _get_protocol_features(self, message: Message) -> list[Effect]:
        return [_reply_number(message, OFFERED_PROTOCOL)]

    def _set_protocol_features(self, message: Message) -> list[Effect]:
        features = payloads.number(message.payload)
        surplus = features & ~OFFERED_PROTOCOL
        if surplus:
            raise NonsenseError(
                f"SET_PROTOCOL_FEATURES has bits never offered: {surplus:#x}"
            )
        self.negotiated = features
        return []

    def _get_queue_num(self, message: Message) -> list[Effect]:
        return [_reply_number(message, MAX_QUEUES)]

    def _set_backend_channel(self, message: Message) -> list[Effect]:
        return [SetBackendChannel(message.fds[0])]

    # --- memory ---------------------------------------------------------------------

    def _set_mem_table(self, message: Message) -> list[Effect]:
        regions = payloads.memory_table(message.payload)
        if regions is None or len(regions) != len(message.fds):
            raise NonsenseError(
                f"SET_MEM_TABLE comes with {len(message.fds)} file descriptors, and "
                "not with one for each of its regions"
            )
        memory = SetMemory(regions, message.fds)
        return [memory, *self._session.guest_changes()]

    def _add_mem_reg(self, message: Message) -> list[Effect]:
        memory = AddMemory(payloads.region(message.payload), message.fds[0])
        return [memory, *self._session.guest_changes()]

    def _rem_mem_reg(self, message: Message) -> list[Effect]:
        memory = RemoveMemory(payloads.region(message.payload))
        return [memory, *self._session.guest_changes()]

    def _get_max_mem_slots(self, message: Message) -> list[Effect]:
        return [_reply_number(message, MAX_MEMORY_SLOTS)]

    def _set_log_base(self, message: Message) -> list[Effect]:
        log = SetLog(payloads.log(message.payload), message.fds[0])
        return [log, _reply_number(message, 0)]

    def _set_log_fd(self, message: Message) -> list[Effect]:
        return [SetLogNotifier(message.fds[0])]

    # --- what is in flight ----------------------------------------------------------

    def _get_inflight_fd(self, message: Message) -> list[Effect]:
        _, _, num_queues, queue_size = payloads.inflight(message.payload)
        if not 0 < num_queues <= MAX_QUEUES or not 0 < queue_size <= VIRTQUEUE_MAX_SIZE:
            raise NonsenseError(
                f"GET_INFLIGHT_FD asks for {num_queues} queues of {queue_size} entries,"
                f" but a balloon has at most {MAX_QUEUES} queues"
            )
        return [ReplyInflight(num_queues, queue_size, len(message.payload))]

    def _set_inflight_fd(self, message: Message) -> list[Effect]:
        if self._rings.running:
            raise NonsenseError("SET_INFLIGHT_FD comes while queues run")
        return [SetInflight(payloads.inflight(message.payload), message.fds[0])]

    # --- rings ----------------------------------------------------------------------

    def _set_vring_num(self, message: Message) -> list[Effect]:
        index, num = payloads.vring_state(message.payload)
        return self._rings.set_size(index, num)

    def _set_vring_addr(self, message: Message) -> list[Effect]:
        return self._rings.set_address(payloads.vring_address(message.payload))

    def _set_vring_base(self, message: Message) -> list[Effect]:
        index, num = payloads.vring_state(message.payload)
        return self._rings.set_base(index, num)

    def _get_vring_base(self, message: Message) -> list[Effect]:
        index = payloads.vring_state(message.payload).queue
        return [*self._rings.stop(index), ReplyBase(index)]

    def _set_vring_endian(self, message: Message) -> list[Effect]:
        index, num = payloads.vring_state(message.payload)
        return self._rings.set_endian(index, num)

    def _set_vring_enable(self, message: Message) -> list[Effect]:
        index, num = payloads.vring_state(message.payload)
        return self._started(self._rings.enable(index, num))

    def _set_vring_kick(self, message: Message) -> list[Effect]:
        notifier = self._notifier(Notifier.KICK, message)
        return [notifier, *self._started(self._rings.kick(notifier.index))]

    def _set_vring_call(self, message: Message) -> list[Effect]:
        return [self._notifier(Notifier.CALL, message)]

    def _set_vring_err(self, message: Message) -> list[Effect]:
        return [self._notifier(Notifier.ERR, message)]

    def _notifier(self, notifier: Notifier, message: Message) -> SetNotifier:
        index, has_fd = payloads.ring_fd(message.payload)
        self._rings.check(index)
        if has_fd != bool(message.fds):
            raise NonsenseError(
                f"{message.name} comes with {len(message.fds)} file descriptors, "
                "and says otherwise"
            )
        return SetNotifier(notifier, index, message.fds[0] if has_fd else None)

    def _started(self, effects: list[Effect]) -> list[Effect]:
        """Take the first start of a queue for DRIVER_OK, if that has not come yet.

        QEMU 11's generic device negotiates STATUS and sends FEATURES_OK, but never
        DRIVER_OK: ``vhost_user_dev_start`` sends it for the last queue of a device, as
        ``vq_index_end`` tells, which ``vhost-user-base.c`` does not set. What it does
        is start its queues on DRIVER_OK.

        It is told before the queue starts, which may be refused, and come about later
        when memory changes.
        """
        if not any(isinstance(effect, StartQueue) for effect in effects):
            return effects
        self._writes.postpone(self.now)
        *before, start = effects
        return [*before, *self._session.ready(goes_on=True), start]

    # --- configuration space --------------------------------------------------------

    def _get_config(self, message: Message) -> list[Effect]:
        offset, size, flags, data = payloads.config_access(message.payload)
        if size != len(data):
            raise NonsenseError(f"GET_CONFIG asks for {size} bytes in {len(data)}")
        # Only a guest that runs reads, so it is not one that is paused.
        told = self._session.begin(goes_on=False)
        return [*told, ReplyConfig(offset, size, flags)]

    def _set_config(self, message: Message) -> list[Effect]:
        offset, size, flags, data = payloads.config_access(message.payload)
        if size != len(data):
            raise NonsenseError(f"SET_CONFIG has {len(data)} bytes and says {size}")
        if flags:
            raise NonsenseError(
                f"SET_CONFIG with flags {flags:#x}: only the driver's writes are taken"
            )
        told = self._session.begin(goes_on=False)
        writes = self._writes_now().accesses(
            offset, data, modern=self._session.modern, now=self.now
        )
        return [*told, *(SetConfig(*write) for write in writes)]

    def _writes_now(self) -> ConfigWrites:
        """Return the config writes, without those that an earlier driver left torn."""
        if self._writes_of != self._session.number:
            self._writes_of = self._session.number
            self._writes.forget()
        return self._writes

    # --- status ---------------------------------------------------------------------

    def _set_status(self, message: Message) -> list[Effect]:
        self._status = payloads.number(message.payload)
        if not self._status:
            effects = self._rings.stop_all()
            self._session.pause()
            return effects
        if self._status & Status.DRIVER_OK:
            return self._rings.ready()
        return []

    def _get_status(self, message: Message) -> list[Effect]:
        lost = self._lost == self._session.number
        flag = Status.DEVICE_NEEDS_RESET if lost else 0
        return [_reply_number(message, self._status | flag)]

    def _reset_owner(self, _message: Message) -> list[Effect]:
        """Disable all rings, which "is recommended" for this outdated request."""
        return self._rings.stop_all()

    def _reset_device(self, _message: Message) -> list[Effect]:
        self._status = 0
        return [*self._rings.reset(), *self._session.end()]

    # --- the device's state ---------------------------------------------------------

    def _set_device_state_fd(self, message: Message) -> list[Effect]:
        direction, phase = payloads.transfer(message.payload)
        # Only a device that is suspended can be transferred, which is phase 0.
        effect = _TRANSFERS.get(direction)
        if phase or effect is None or self._rings.running:
            return [_reply_number(message, _NO_FD | _FAILURE)]
        return [effect(message.fds[0]), _reply_number(message, _NO_FD)]

    def _check_device_state(self, _message: Message) -> list[Effect]:
        return [CheckState()]

    # --- the table ------------------------------------------------------------------

    HANDLERS: ClassVar[dict[int, tuple[_P | None, Handler]]] = {
        _R.GET_FEATURES: (None, _get_features),
        _R.SET_FEATURES: (None, _set_features),
        _R.SET_OWNER: (None, _nothing),
        _R.RESET_OWNER: (None, _reset_owner),
        _R.SET_MEM_TABLE: (None, _set_mem_table),
        _R.SET_LOG_BASE: (_P.LOG_SHMFD, _set_log_base),
        _R.SET_LOG_FD: (None, _set_log_fd),
        _R.SET_VRING_NUM: (None, _set_vring_num),
        _R.SET_VRING_ADDR: (None, _set_vring_addr),
        _R.SET_VRING_BASE: (None, _set_vring_base),
        _R.GET_VRING_BASE: (None, _get_vring_base),
        _R.SET_VRING_KICK: (None, _set_vring_kick),
        _R.SET_VRING_CALL: (None, _set_vring_call),
        _R.SET_VRING_ERR: (None, _set_vring_err),
        _R.GET_PROTOCOL_FEATURES: (None, _get_protocol_features),
        _R.SET_PROTOCOL_FEATURES: (None, _set_protocol_features),
        _R.GET_QUEUE_NUM: (_P.MQ, _get_queue_num),
        _R.SET_VRING_ENABLE: (None, _set_vring_enable),
        _R.SET_BACKEND_REQ_FD: (_P.BACKEND_REQ, _set_backend_channel),
        _R.SET_VRING_ENDIAN: (_P.CROSS_ENDIAN, _set_vring_endian),
        _R.GET_CONFIG: (_P.CONFIG, _get_config),
        _R.SET_CONFIG: (_P.CONFIG, _set_config),
        _R.GET_INFLIGHT_FD: (_P.INFLIGHT_SHMFD, _get_inflight_fd),
        _R.SET_INFLIGHT_FD: (_P.INFLIGHT_SHMFD, _set_inflight_fd),
        _R.RESET_DEVICE: (_P.RESET_DEVICE, _reset_device),
        _R.GET_MAX_MEM_SLOTS: (_P.CONFIGURE_MEM_SLOTS, _get_max_mem_slots),
        _R.ADD_MEM_REG: (_P.CONFIGURE_MEM_SLOTS, _add_mem_reg),
        _R.REM_MEM_REG: (_P.CONFIGURE_MEM_SLOTS, _rem_mem_reg),
        _R.SET_STATUS: (_P.STATUS, _set_status),
        _R.GET_STATUS: (_P.STATUS, _get_status),
        _R.SET_DEVICE_STATE_FD: (_P.DEVICE_STATE, _set_device_state_fd),
        _R.CHECK_DEVICE_STATE: (_P.DEVICE_STATE, _check_device_state),
    }
    """What each request needs negotiated, and what it does."""


_TRANSFERS: Final[dict[int, type[SaveState | LoadState]]] = {
    TransferDirection.SAVE: SaveState,
    TransferDirection.LOAD: LoadState,
}

Handler: TypeAlias = Callable[[Requests, Message], list[Effect]]
