"""Statistics: a buffer that the driver fills, and the device keeps until it asks again.

The queue is driven by the device (VIRTIO 1.3 §5.5.6.3). The driver sends its buffer; to
return it is to ask for new numbers. Knows one queue, and nothing of the rest.

Each buffer is a sample that stands alone. What a driver leaves out is missing, and the
numbers of a buffer that was read before are not told a second time: a queue that
stopped comes back with the very buffer that the device was keeping.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from balloon_plugin.errors import HostError
from balloon_plugin.events import Event, StatsReceived
from balloon_plugin.hookspecs import VirtQueue
from balloon_plugin.kick import CHAINS_AT_ONCE, Kick, read
from balloon_plugin.layouts import VIRTIO_BALLOON_STAT
from balloon_plugin.stats import MAX_STATS, parse
from balloon_plugin.status import Sample
from balloon_plugin.virtqueue import Chain

__all__ = ["Statistics"]

LONGEST_INTERVAL: Final = (1 << 32) - 1
"""Seconds between two requests: 136 years, and what QEMU takes at the most."""

_MOST_BYTES: Final = MAX_STATS * VIRTIO_BALLOON_STAT.size


@dataclass(slots=True)
class _Session:
    """What is forgotten when the driver resets the device."""

    values: tuple[tuple[int, int], ...] | None = None
    updated: float = 0.0
    begun: bool = False
    """Whether a first buffer came."""
    kept: Chain | None = None
    queue: VirtQueue | None = None
    """Where the kept buffer is from."""
    known: bool = False
    """Whether the next buffer is one that was read before its queue stopped."""


class Statistics:
    """The statistics of one guest.

    :param observe: is shown what came, before anything is asked again.
    """

    def __init__(self, observe: Callable[[Event], None]) -> None:
        self._observe = observe
        self._interval = 0
        self._due = 0.0
        self._session = _Session()

    @property
    def interval(self) -> int:
        """Seconds between two requests; 0 if none are made."""
        return self._interval

    def set_interval(self, seconds: int, now: float) -> None:
        """Ask every so many seconds from now on, or never (0).

        :raises HostError: if the number is not one of seconds.
        """
        if type(seconds) is not int or not 0 <= seconds <= LONGEST_INTERVAL:
            message = (
                f"statistics cannot be asked for every {seconds!r} seconds: "
                f"give 0 for never, or up to {LONGEST_INTERVAL}"
            )
            raise HostError(message)
        self._interval, self._due = seconds, now

    def reset(self) -> None:
        """Forget the driver's numbers; the interval is the user's, and stays."""
        self._session = _Session()

    def serve(self, kick: Kick, *, legacy: bool) -> bool:
        """Read buffers and keep the newest; return whether more may wait.

        A driver MUST have one buffer at most in the queue. Others go back at once.

        :param legacy: whether the first buffer of a session has no meaning.
        """
        session = self._session
        self._rejoin(kick.queue)
        chains = kick.queue.pop(CHAINS_AT_ONCE)
        if not chains:
            return False
        for chain in chains:
            self._read(chain, kick, legacy=legacy)
        superseded = [session.kept] if session.kept is not None else []
        session.kept, session.queue = chains[-1], kick.queue
        kick.answer([*superseded, *chains[:-1]])
        return len(chains) == CHAINS_AT_ONCE

    def look(self, kick: Kick, *, legacy: bool) -> None:
        """Take a buffer that nobody will kick for, as after a restore or a pause."""
        self._rejoin(kick.queue)
        if self._session.kept is None:
            self.serve(kick, legacy=legacy)

    def ask(self, kick: Kick) -> None:
        """Ask for new numbers, if it is time and the driver is not at it already."""
        self._rejoin(kick.queue)
        kept, now = self._session.kept, kick.host.now()
        if not self._interval or now < self._due or kept is None:
            return
        self._session.kept = None
        # From when it was due: a host's ticks are not on time to the millisecond.
        self._due = max(self._due + self._interval, now)
        kick.answer([kept])

    def sample(self, now: float) -> Sample | None:
        """Return the newest numbers, or ``None`` if the driver sent none yet."""
        values, updated = self._session.values, self._session.updated
        return None if values is None else Sample(values, updated, now - updated)

    # --- snapshots ---

    def save(self, now: float) -> dict[str, Any]:
        """Return all that is kept as a value that JSON can carry.

        The buffer itself stays in its queue, which goes on from there.
        """
        session = self._session
        return {
            "interval": self._interval,
            "begun": session.begun,
            "known": session.kept is not None or session.known,
            "values": None if session.values is None else list(session.values),
            "age": float(now - session.updated),
        }

    def load(self, state: dict[str, Any], now: float) -> None:
        """Take over what :meth:`save` returned, on a host with a clock of its own."""
        self._interval, self._due = state["interval"], now
        self._session = _Session(begun=state["begun"], known=state["known"])
        if state["values"] is not None:
            self._session.values = tuple((tag, val) for tag, val in state["values"])
            self._session.updated = now - state["age"]

    # --- buffers ---

    def _rejoin(self, queue: VirtQueue) -> None:
        """Let go of a buffer whose queue was stopped, and started again in its place.

        It is in the new queue too, which goes on from the first chain not returned.
        """
        session = self._session
        if session.kept is not None and session.queue is not queue:
            session.kept, session.known = None, True

    def _read(self, chain: Chain, kick: Kick, *, legacy: bool) -> None:
        session = self._session
        data = read(chain, kick.host.memory, _MOST_BYTES, kick.fault)
        if session.known:
            session.known = False
            return
        first, session.begun = not session.begun, True
        if first and legacy:
            # §5.5.6.3.3, SHOULD ignore all values in the first buffer: D8. Kernels to
            # 4.18 send what was in that memory before.
            return
        stats = parse(data, kick.queue.byte_order)
        # The specification has the first buffer empty (§5.5.5), which says nothing.
        if stats:
            session.values, session.updated = stats, kick.host.now()
            self._observe(StatsReceived(stats))
