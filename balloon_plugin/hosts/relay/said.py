"""What a front end said that still holds, to be said again to the next daemon.

Pure: file descriptors are numbers here, and whoever asks for what is to be said lends a
look at guest memory. Only what a daemon carried out is noted. Of most requests the last
one holds, for the whole device or for each queue; the rest is a table of exceptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Final, TypeAlias

from balloon_plugin.events import ByteOrder
from balloon_plugin.hosts.vhost_user import messages, payloads
from balloon_plugin.hosts.vhost_user.messages import MAX_FDS, Message, NonsenseError
from balloon_plugin.hosts.vhost_user.payloads import NATIVE, Region
from balloon_plugin.hosts.vhost_user.requests import MAX_MEMORY_SLOTS
from balloon_plugin.hosts.vhost_user.rings import MAX_QUEUES
from balloon_plugin.layouts import VRING_USED, Feature, VhostUserRequest
from balloon_plugin.virtqueue import PackedQueue

__all__ = ["Look", "Said"]

Look: TypeAlias = Callable[[int, int, int], bytes]
"""Returns what is in a file: its descriptor, an offset, how many bytes.

Fewer if it has not got them, or cannot be read.
"""

_R = VhostUserRequest

# In the order in which they are said again. Rings start only when all of them are
# known, by which a daemon tells whose they are; DRIVER_OK comes last.
_FIRST: Final = (_R.SET_OWNER, _R.SET_BACKEND_REQ_FD, _R.SET_FEATURES)
_BEFORE_RINGS: Final = (_R.SET_LOG_BASE, _R.SET_LOG_FD, _R.SET_INFLIGHT_FD)
_RINGS: Final = (
    _R.SET_VRING_ENDIAN,
    _R.SET_VRING_CALL,
    _R.SET_VRING_ERR,
    _R.SET_VRING_NUM,
    _R.SET_VRING_ADDR,
)
_STARTS: Final = (_R.SET_VRING_KICK, _R.SET_VRING_ENABLE)
_LAST: Final = (_R.SET_STATUS,)

_NEEDED: Final = (_R.SET_VRING_NUM, _R.SET_VRING_ADDR, _R.SET_VRING_KICK)
"""What a queue needs to run, besides being enabled."""

_OF_DEVICE: Final = frozenset(
    {_R.SET_PROTOCOL_FEATURES, *_FIRST, *_BEFORE_RINGS, *_LAST}
)
_OF_QUEUE: Final = frozenset({_R.SET_VRING_BASE, *_RINGS, *_STARTS})
_NOTIFIERS: Final = frozenset({_R.SET_VRING_KICK, _R.SET_VRING_CALL, _R.SET_VRING_ERR})
_RESET: Final = _OF_QUEUE - _NOTIFIERS | {_R.SET_VRING_KICK, _R.SET_FEATURES, *_LAST}
"""What RESET_DEVICE makes undone; memory and other descriptors stay."""

_DEVICE: Final = -1
"""Stands for a queue in what was said of the whole device."""


class Said:
    """What one front end said that still holds, at most once each."""

    def __init__(self) -> None:
        self._said: dict[tuple[int, int], Message] = {}
        self._regions: dict[tuple[int, int, int], tuple[Region, int]] = {}
        self._moved: set[int] = set()  # queues that may not stand where it was said

    # --- what holds -----------------------------------------------------------------

    @property
    def features(self) -> int:
        """The feature bits that were accepted."""
        return self._number(_R.SET_FEATURES)

    @property
    def protocol_features(self) -> int:
        """The protocol features that were agreed on."""
        return self._number(_R.SET_PROTOCOL_FEATURES)

    @property
    def kicks(self) -> bool:
        """Whether a queue may run."""
        return any(code == _R.SET_VRING_KICK for code, _ in self._said)

    @property
    def fds(self) -> frozenset[int]:
        """The file descriptors that are needed to say it again."""
        fds = {fd for message in self._said.values() for fd in message.fds}
        return frozenset(fds | {fd for _, fd in self._regions.values()})

    # --- what was said --------------------------------------------------------------

    def note(self, message: Message, answer: bytes) -> None:
        """Note a request that the daemon carried out.

        :param answer: the payload of its reply.
        :raises NonsenseError: with a sentence, if it cannot be remembered.
        """
        if message.code not in _OF_DEVICE | _OF_QUEUE | self._EXCEPTIONS.keys():
            return
        problem = messages.misfit(message)
        if problem:
            raise NonsenseError(problem)
        if message.code in _OF_DEVICE:
            self._said[message.code, _DEVICE] = message
        if message.code in _OF_QUEUE:
            self._note_of_queue(message)
        if message.code in self._EXCEPTIONS:
            self._EXCEPTIONS[message.code](self, message, answer)

    def _note_of_queue(self, message: Message) -> None:
        index = _queue_of(message)
        self._said[message.code, index] = message
        if message.code == _R.SET_VRING_BASE:
            self._moved.discard(index)
        elif self._runs(index):
            self._moved.add(index)

    def _runs(self, index: int) -> bool:
        """Return whether a queue runs ("Ring states")."""
        enabled = self._said.get((_R.SET_VRING_ENABLE, index))
        if enabled is None:
            on = not self.features & Feature.VHOST_USER_F_PROTOCOL_FEATURES.mask
        else:
            on = bool(payloads.vring_state(enabled.payload).num)
        return on and all((code, index) in self._said for code in _NEEDED)

    def _set_mem_table(self, message: Message, _answer: bytes) -> None:
        regions = payloads.memory_table(message.payload) or ()
        if len(regions) != len(message.fds):
            raise NonsenseError("SET_MEM_TABLE has not a descriptor for each region")
        self._regions.clear()
        for region, fd in zip(regions, message.fds, strict=True):
            self._regions[region[:3]] = region, fd

    def _add_mem_reg(self, message: Message, _answer: bytes) -> None:
        region = payloads.region(message.payload)
        self._regions[region[:3]] = region, message.fds[0]
        if len(self._regions) > MAX_MEMORY_SLOTS:
            raise NonsenseError(
                f"guest memory has more than {MAX_MEMORY_SLOTS} regions"
            )

    def _rem_mem_reg(self, message: Message, _answer: bytes) -> None:
        self._regions.pop(payloads.region(message.payload)[:3], None)

    def _get_vring_base(self, message: Message, answer: bytes) -> None:
        """Note that a ring stopped, and where."""
        index = _queue_of(message)
        self._said.pop((_R.SET_VRING_KICK, index), None)
        self._note_of_queue(_again(_R.SET_VRING_BASE, answer))

    def _set_status(self, message: Message, _answer: bytes) -> None:
        if not payloads.number(message.payload):
            self._forget({_R.SET_VRING_KICK, _R.SET_STATUS})

    def _reset_owner(self, _message: Message, _answer: bytes) -> None:
        self._forget({_R.SET_VRING_KICK})

    def _reset_device(self, _message: Message, _answer: bytes) -> None:
        self._forget(_RESET)
        self._moved.clear()

    def _forget(self, codes: Iterable[int]) -> None:
        for key in [key for key in self._said if key[0] in codes]:
            del self._said[key]

    _EXCEPTIONS: ClassVar[dict[int, Callable[[Said, Message, bytes], None]]] = {
        _R.SET_MEM_TABLE: _set_mem_table,
        _R.ADD_MEM_REG: _add_mem_reg,
        _R.REM_MEM_REG: _rem_mem_reg,
        _R.GET_VRING_BASE: _get_vring_base,
        _R.SET_STATUS: _set_status,
        _R.RESET_OWNER: _reset_owner,
        _R.RESET_DEVICE: _reset_device,
    }
    """What is more, or other, than the last of its kind."""

    # --- what is said again ---------------------------------------------------------

    def again(self, look: Look) -> Iterator[Message]:
        """Yield what brings a daemon to where the one before was, in order.

        Protocol features go before it. Queues are where their used rings show.

        :param look: at the files that came with memory.
        """
        queues = sorted({index for _, index in self._said if index != _DEVICE})
        yield from self._of(_FIRST)
        yield from self._memory()
        yield from self._of(_BEFORE_RINGS)
        for index in queues:
            yield from self._where_it_stands(index, look)
            yield from self._of(_RINGS, index)
        for index in queues:
            yield from self._of(_STARTS, index)
        yield from self._of(_LAST)

    def _of(self, codes: Iterable[int], index: int = _DEVICE) -> Iterator[Message]:
        for code in codes:
            if (code, index) in self._said:
                yield self._said[code, index]

    def _memory(self) -> Iterator[Message]:
        regions = list(self._regions.values())
        if 0 < len(regions) <= MAX_FDS:
            table = payloads.pack_memory_table([region for region, _ in regions])
            yield _again(_R.SET_MEM_TABLE, table, *(fd for _, fd in regions))
            return
        for region, fd in regions:
            yield _again(_R.ADD_MEM_REG, payloads.pack_region(region), fd)

    def _where_it_stands(self, index: int, look: Look) -> Iterator[Message]:
        """Yield SET_VRING_BASE as it is by now, if it is known."""
        base = self._position(index, look) if index in self._moved else None
        if base is None:
            yield from self._of((_R.SET_VRING_BASE,), index)
        else:
            payload = payloads.pack_vring_state(index, base)
            yield _again(_R.SET_VRING_BASE, payload)

    def _position(self, index: int, look: Look) -> int | None:
        """Return where a queue stands, if that can be seen."""
        if self.features & Feature.VIRTIO_F_RING_PACKED.mask:
            return PackedQueue.START  # a daemon finds out itself
        address = self._said[_R.SET_VRING_ADDR, index]  # or else it never ran
        place = payloads.vring_address(address.payload).used + VRING_USED.offsets["idx"]
        for region, fd in self._regions.values():
            if 0 <= place - region.user_address < region.size:
                seen = look(fd, place - region.user_address + region.offset, _INDEX)
                big = self._is_big_endian(index)
                base = int.from_bytes(seen, "big" if big else "little")
                return base if len(seen) == _INDEX else None
        return None

    def _is_big_endian(self, index: int) -> bool:
        if self.features & Feature.VIRTIO_F_VERSION_1.mask:
            return False
        said = self._said.get((_R.SET_VRING_ENDIAN, index))
        if said is None:
            return NATIVE is ByteOrder.BIG
        return bool(payloads.vring_state(said.payload).num)

    def _number(self, code: int) -> int:
        message = self._said.get((code, _DEVICE))
        return payloads.number(message.payload) if message else 0


_INDEX: Final = 2
"""Bytes of the index of a used ring."""


def _again(code: VhostUserRequest, payload: bytes, *fds: int) -> Message:
    return Message(code, needs_reply=True, payload=payload, fds=fds)


def _queue_of(message: Message) -> int:
    """Return the queue that a message is about.

    :raises NonsenseError: if no balloon has it.
    """
    if message.code in _NOTIFIERS:
        index = payloads.ring_fd(message.payload).queue
    elif message.code == _R.SET_VRING_ADDR:
        index = payloads.vring_address(message.payload).queue
    else:
        index = payloads.vring_state(message.payload).queue
    if index >= MAX_QUEUES:
        raise NonsenseError(f"a balloon has at most {MAX_QUEUES} queues, not {index}")
    return index
