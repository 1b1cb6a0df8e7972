"""Every number and structure of the specifications, declared once.

This module knows the wire: names, values, sizes and byte layouts from VIRTIO 1.3 and
the vhost-user protocol, spelled as there. It must not know what any of it means.

Structures are C text for ``cstruct``, the one place where they are written down. From
each declaration a pair of compiled :class:`struct.Struct` twins is derived at import,
because parsing with ``cstruct`` itself takes about a hundred times as long (and accepts
short input); everything that runs per kick or per message uses the twins.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Any, Final

import cstruct

from balloon_plugin.events import ByteOrder

# --- numbers of the device (VIRTIO 1.3 §5.5) ----------------------------------------

VIRTIO_ID_BALLOON: Final = 5

VIRTIO_BALLOON_PFN_SHIFT: Final = 12
"""A page number is a guest-physical address shifted by this, in every guest."""

PAGE_SIZE: Final = 1 << VIRTIO_BALLOON_PFN_SHIFT
"""Bytes in the page that the device counts in (4 KiB)."""


class Feature(enum.IntEnum):
    """Feature bits by number, of the balloon (§5.5.3) and of every device (§6)."""

    VIRTIO_BALLOON_F_MUST_TELL_HOST = 0
    VIRTIO_BALLOON_F_STATS_VQ = 1
    VIRTIO_BALLOON_F_DEFLATE_ON_OOM = 2
    VIRTIO_BALLOON_F_FREE_PAGE_HINT = 3
    VIRTIO_BALLOON_F_PAGE_POISON = 4
    VIRTIO_BALLOON_F_REPORTING = 5
    VIRTIO_F_NOTIFY_ON_EMPTY = 24
    VHOST_F_LOG_ALL = 26
    VIRTIO_F_ANY_LAYOUT = 27
    VIRTIO_RING_F_INDIRECT_DESC = 28
    VIRTIO_RING_F_EVENT_IDX = 29
    VHOST_USER_F_PROTOCOL_FEATURES = 30
    VIRTIO_F_VERSION_1 = 32
    VIRTIO_F_ACCESS_PLATFORM = 33
    VIRTIO_F_RING_PACKED = 34

    @property
    def mask(self) -> int:
        """The bit as a mask of the 64-bit feature word."""
        return 1 << self


DEVICE_FEATURES_MASK: Final = (1 << 24) - 1
"""Bits 0 to 23 belong to the device type (§2.2); a legacy driver sees none above 31."""


class Status(enum.IntFlag):
    """Device status bits (§2.1)."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    DEVICE_NEEDS_RESET = 64
    FAILED = 128


class Queue(enum.IntEnum):
    """Queues by their number in §5.5.2; drivers number offered ones densely."""

    INFLATEQ = 0
    DEFLATEQ = 1
    STATSQ = 2
    FREE_PAGE_VQ = 3
    REPORTING_VQ = 4


class StatTag(enum.IntEnum):
    """Tags of memory statistics (§5.5.6.4; 10 and above from Linux 6.12)."""

    VIRTIO_BALLOON_S_SWAP_IN = 0
    VIRTIO_BALLOON_S_SWAP_OUT = 1
    VIRTIO_BALLOON_S_MAJFLT = 2
    VIRTIO_BALLOON_S_MINFLT = 3
    VIRTIO_BALLOON_S_MEMFREE = 4
    VIRTIO_BALLOON_S_MEMTOT = 5
    VIRTIO_BALLOON_S_AVAIL = 6
    VIRTIO_BALLOON_S_CACHES = 7
    VIRTIO_BALLOON_S_HTLB_PGALLOC = 8
    VIRTIO_BALLOON_S_HTLB_PGFAIL = 9
    VIRTIO_BALLOON_S_OOM_KILL = 10
    VIRTIO_BALLOON_S_ALLOC_STALL = 11
    VIRTIO_BALLOON_S_ASYNC_SCAN = 12
    VIRTIO_BALLOON_S_DIRECT_SCAN = 13
    VIRTIO_BALLOON_S_ASYNC_RECLAIM = 14
    VIRTIO_BALLOON_S_DIRECT_RECLAIM = 15


class HintCommand(enum.IntEnum):
    """Reserved values of ``free_page_hint_cmd_id`` (§5.5.6.5); others are commands."""

    VIRTIO_BALLOON_CMD_ID_STOP = 0
    VIRTIO_BALLOON_CMD_ID_DONE = 1


# --- numbers of the split virtqueue (§2.7) ------------------------------------------

VRING_DESC_F_NEXT: Final = 1
VRING_DESC_F_WRITE: Final = 2
VRING_DESC_F_INDIRECT: Final = 4
VRING_USED_F_NO_NOTIFY: Final = 1
VRING_AVAIL_F_NO_INTERRUPT: Final = 1

VIRTQUEUE_MAX_SIZE: Final = 32768
"""The largest ring of either format that the specification allows (§2.7, §2.8)."""


# --- numbers of the packed virtqueue (§2.8) -----------------------------------------

VRING_PACKED_DESC_F_AVAIL: Final = 7
VRING_PACKED_DESC_F_USED: Final = 15
VRING_PACKED_EVENT_FLAG_ENABLE: Final = 0
VRING_PACKED_EVENT_FLAG_DISABLE: Final = 1
VRING_PACKED_EVENT_FLAG_DESC: Final = 2
VRING_PACKED_EVENT_F_WRAP_CTR: Final = 15


# --- numbers of vhost-user ----------------------------------------------------------


class VhostUserRequest(enum.IntEnum):
    """Messages from the front end to us."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SEND_RARP = 19
    NET_SET_MTU = 20
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22
    SET_VRING_ENDIAN = 23
    GET_CONFIG = 24
    SET_CONFIG = 25
    CREATE_CRYPTO_SESSION = 26
    CLOSE_CRYPTO_SESSION = 27
    POSTCOPY_ADVISE = 28
    POSTCOPY_LISTEN = 29
    POSTCOPY_END = 30
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    GPU_SET_SOCKET = 33
    RESET_DEVICE = 34
    VRING_KICK = 35
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40
    GET_SHARED_OBJECT = 41
    SET_DEVICE_STATE_FD = 42
    CHECK_DEVICE_STATE = 43


class TransferDirection(enum.IntEnum):
    """Where a device's state goes with SET_DEVICE_STATE_FD."""

    SAVE = 0
    LOAD = 1


class VhostUserBackendRequest(enum.IntEnum):
    """Messages from us to the front end, on the backend channel."""

    IOTLB_MSG = 1
    CONFIG_CHANGE_MSG = 2
    VRING_HOST_NOTIFIER_MSG = 3
    VRING_CALL = 4
    VRING_ERR = 5


class VhostUserProtocolFeature(enum.IntEnum):
    """Protocol features by bit number."""

    MQ = 0
    LOG_SHMFD = 1
    RARP = 2
    REPLY_ACK = 3
    NET_MTU = 4
    BACKEND_REQ = 5
    CROSS_ENDIAN = 6
    CRYPTO_SESSION = 7
    PAGEFAULT = 8
    CONFIG = 9
    BACKEND_SEND_FD = 10
    HOST_NOTIFIER = 11
    INFLIGHT_SHMFD = 12
    RESET_DEVICE = 13
    INBAND_NOTIFICATIONS = 14
    CONFIGURE_MEM_SLOTS = 15
    STATUS = 16
    XEN_MMAP = 17
    SHARED_OBJECT = 18
    DEVICE_STATE = 19

    @property
    def mask(self) -> int:
        """The bit as a mask of the 64-bit protocol feature word."""
        return 1 << self


VHOST_USER_VERSION: Final = 1
VHOST_USER_VERSION_MASK: Final = 0x3
VHOST_USER_REPLY_MASK: Final = 0x4
VHOST_USER_NEED_REPLY_MASK: Final = 0x8
VHOST_USER_VRING_IDX_MASK: Final = 0xFF
VHOST_USER_VRING_NOFD_MASK: Final = 0x100
VHOST_USER_MEMORY_BASELINE_NREGIONS: Final = 8
VHOST_VRING_F_LOG: Final = 0
"""The bit by number, as in the Linux header."""
VHOST_USER_MAX_CONFIG_SIZE: Final = 256


# --- structures ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Layout:
    """One structure, compiled for both byte orders.

    :ivar name: name in the specification.
    :ivar fields: field names in order.
    :ivar offsets: byte offset of each field.
    :ivar size: bytes of the whole structure; there is no hidden padding.
    """

    name: str
    fields: tuple[str, ...]
    offsets: dict[str, int]
    size: int
    little: struct.Struct
    big: struct.Struct

    def of(self, order: ByteOrder) -> struct.Struct:
        """Return the twin for ``order``."""
        return self.little if order is ByteOrder.LITTLE else self.big


_INTEGERS = {"u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64"}
# cstruct keeps typedefs and structures in registries that the whole process shares.
_PREFIX = "balloon_plugin_"
for _short, _native in _INTEGERS.items():
    cstruct.typedef(_native, _PREFIX + _short)


def _declare(name: str, body: str) -> Layout:
    """Compile one structure from its C text; integer types are u8, u16, u32 and u64."""
    for short in _INTEGERS:
        body = body.replace(f"{short} ", f"{_PREFIX}{short} ")
    text = f"struct {_PREFIX}{name} {{ {body} }}"
    declared: Any = cstruct.parse(text, __byte_order__=cstruct.LITTLE_ENDIAN)
    types = declared.__fields_types__
    fields = "".join(field.fmt.lstrip("<") for field in types.values())
    little = struct.Struct("<" + fields)
    if little.size != declared.size:
        message = f"{name}: {little.size} bytes compiled, {declared.size} declared"
        raise AssertionError(message)
    offsets = {key: field.offset for key, field in types.items()}
    return Layout(
        name, tuple(types), offsets, little.size, little, struct.Struct(">" + fields)
    )


VIRTIO_BALLOON_CONFIG: Final = _declare(
    "virtio_balloon_config",
    "u32 num_pages; u32 actual; u32 free_page_hint_cmd_id; u32 poison_val;",
)
"""Device configuration (§5.5.4), little-endian even for a big-endian guest (D3)."""

VIRTIO_BALLOON_STAT: Final = _declare("virtio_balloon_stat", "u16 tag; u64 val;")
"""One statistic (§5.5.6.4): 10 bytes, packed."""

VRING_DESC: Final = _declare("vring_desc", "u64 addr; u32 len; u16 flags; u16 next;")
VRING_AVAIL: Final = _declare("vring_avail", "u16 flags; u16 idx;")
"""Head of the available ring (§2.7.6); ``queue size`` u16 ring entries follow."""
VRING_USED_ELEM: Final = _declare("vring_used_elem", "u32 id; u32 len;")
VRING_USED: Final = _declare("vring_used", "u16 flags; u16 idx;")
"""Head of the used ring (§2.7.8); ``queue size`` used elements follow."""
VRING_PACKED_DESC: Final = _declare(
    "vring_packed_desc", "u64 addr; u32 len; u16 id; u16 flags;"
)
VRING_PACKED_DESC_EVENT: Final = _declare(
    "vring_packed_desc_event", "u16 off_wrap; u16 flags;"
)
"""Event suppression (§2.8.14): a descriptor's number and wrap counter, and flags."""

VHOST_USER_HEADER: Final = _declare(
    # cstruct reserves the member name ``size``
    "vhost_user_header",
    "u32 request; u32 flags; u32 payload_size;",
)
VHOST_USER_U64: Final = _declare("vhost_user_u64", "u64 value;")
VHOST_VRING_STATE: Final = _declare("vhost_vring_state", "u32 index; u32 num;")
VHOST_VRING_ADDR: Final = _declare(
    "vhost_vring_addr",
    "u32 index; u32 flags; u64 desc_user_addr; u64 used_user_addr;"
    " u64 avail_user_addr; u64 log_guest_addr;",
)
VHOST_USER_MEMORY: Final = _declare("vhost_user_memory", "u32 nregions; u32 padding;")
"""Head of a memory table; ``nregions`` regions follow."""
VHOST_USER_MEMORY_REGION: Final = _declare(
    "vhost_user_memory_region",
    "u64 guest_phys_addr; u64 memory_size; u64 userspace_addr; u64 mmap_offset;",
)
VHOST_USER_SINGLE_MEMORY_REGION: Final = _declare(
    "vhost_user_single_memory_region",
    "u64 padding; u64 guest_phys_addr; u64 memory_size; u64 userspace_addr;"
    " u64 mmap_offset;",
)
VHOST_USER_CONFIG: Final = _declare(
    "vhost_user_config", "u32 offset; u32 config_size; u32 flags;"
)
"""Head of a config message; ``config_size`` bytes of config space follow."""
VHOST_USER_INFLIGHT: Final = _declare(
    "vhost_user_inflight",
    "u64 mmap_size; u64 mmap_offset; u16 num_queues; u16 queue_size;",
)
QUEUE_REGION_SPLIT: Final = _declare(
    "queue_region_split",
    "u64 features; u16 version; u16 desc_num; u16 last_batch_head; u16 used_idx;",
)
"""Head of a split queue's record of buffers in flight; ``desc_num`` states follow."""
DESC_STATE_SPLIT: Final = _declare(
    "desc_state_split",
    "u8 inflight; u8 padding_1; u16 padding_2; u16 padding_3; u16 next; u64 counter;",
)
QUEUE_REGION_PACKED: Final = _declare(
    "queue_region_packed",
    "u64 features; u16 version; u16 desc_num; u16 free_head; u16 old_free_head;"
    " u16 used_idx; u16 old_used_idx; u8 used_wrap_counter; u8 old_used_wrap_counter;"
    " u16 padding_1; u64 padding_2;",
)
"""The same of a packed queue."""
DESC_STATE_PACKED: Final = _declare(
    "desc_state_packed",
    "u8 inflight; u8 padding; u16 next; u16 last; u16 num; u64 counter;"
    " u16 id; u16 flags; u32 len; u64 addr;",
)
VHOST_USER_LOG: Final = _declare("vhost_user_log", "u64 mmap_size; u64 mmap_offset;")
VHOST_USER_TRANSFER_DEVICE_STATE: Final = _declare(
    "vhost_user_transfer_device_state", "u32 direction; u32 phase;"
)

LAYOUTS: Final = (
    VIRTIO_BALLOON_CONFIG,
    VIRTIO_BALLOON_STAT,
    VRING_DESC,
    VRING_AVAIL,
    VRING_USED_ELEM,
    VRING_USED,
    VRING_PACKED_DESC,
    VRING_PACKED_DESC_EVENT,
    VHOST_USER_HEADER,
    VHOST_USER_U64,
    VHOST_VRING_STATE,
    VHOST_VRING_ADDR,
    VHOST_USER_MEMORY,
    VHOST_USER_MEMORY_REGION,
    VHOST_USER_SINGLE_MEMORY_REGION,
    VHOST_USER_CONFIG,
    VHOST_USER_INFLIGHT,
    QUEUE_REGION_SPLIT,
    DESC_STATE_SPLIT,
    QUEUE_REGION_PACKED,
    DESC_STATE_PACKED,
    VHOST_USER_LOG,
    VHOST_USER_TRANSFER_DEVICE_STATE,
)
"""Every structure, for tests that compare them with the Linux headers."""
