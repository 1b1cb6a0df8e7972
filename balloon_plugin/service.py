"""Serving the queues of a device: which is whose, and what is done without a kick.

Knows the host's queues and hands them to those who know what is in them:
:mod:`~balloon_plugin.inventory` and :mod:`~balloon_plugin.duties`. Knows no
configuration space, and changes of a session only what its queues show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from balloon_plugin.duties.table import Duties
from balloon_plugin.events import GuestFault, QueueSeen
from balloon_plugin.features import queues
from balloon_plugin.gatekeeper import Gatekeeper
from balloon_plugin.hookspecs import Host
from balloon_plugin.inventory import Inventory, Pfns, take
from balloon_plugin.kick import Kick
from balloon_plugin.layouts import Queue
from balloon_plugin.session import Session

__all__ = ["PAGE_QUEUES", "Service"]

PAGE_QUEUES = (Queue.INFLATEQ, Queue.DEFLATEQ)
"""Those that carry page numbers; they are there whatever is offered, and first."""

_Take: TypeAlias = Callable[[Sequence[Pfns], Kick, Session], None]


class Service:
    """The queues of one device.

    :param gatekeeper: is shown what the driver does.
    :param inventory: takes the pages of the balloon.
    :param duties: takes all else.
    """

    def __init__(
        self, gatekeeper: Gatekeeper, inventory: Inventory, duties: Duties
    ) -> None:
        self._gatekeeper = gatekeeper
        self._inventory = inventory
        self._duties = duties
        self._pages: dict[Queue, _Take] = {
            Queue.INFLATEQ: self._inflate,
            Queue.DEFLATEQ: self._deflate,
        }

    def serve(self, index: int, host: Host, session: Session) -> bool:
        """Serve a queue within the budget; return whether more waits."""
        roles = queues(session.offered or 0)
        kick = self._kick(index, host, session) if index < len(roles) else None
        if kick is None:
            return False
        role = roles[index]
        if role in self._pages:
            more = self._serve_pages(kick, session, self._pages[role])
        else:
            more = self._duties.serve(role, kick, session.terms)
        self._close_lost(kick, session)
        return more

    def pass_time(self, host: Host, session: Session) -> None:
        """Do what has to be done though nobody kicks."""
        kick = self._kick_of(Queue.STATSQ, host, session)
        if kick is not None:
            self._duties.statistics.look(kick, legacy=session.terms.legacy)
            self._close_lost(kick, session)
        self.ask_for_statistics(host, session)
        if session.terms.told:
            self._inventory.sweep(host)

    def ask_for_statistics(self, host: Host, session: Session) -> None:
        """Ask the driver for statistics, if it is time and it is ready (D15)."""
        kick = self._kick_of(Queue.STATSQ, host, session) if session.ready else None
        if kick is not None:
            self._duties.ask_for_statistics(kick)

    def fault(self, session: Session, what: str, index: int | None = None) -> None:
        """Note what the driver did wrong, a sentence, and in which queue."""
        session.faults += 1
        session.last_fault = what
        self._gatekeeper.emit(GuestFault(what, index))

    # --- pages ---

    def _serve_pages(self, kick: Kick, session: Session, use: _Take) -> bool:
        batch = take(kick.queue, kick.host.memory, kick.fault)
        if batch.chains:
            self._see_queues(kick.host, session)
            session.driver = session.looked = True
            use([pfns for pfns in batch.buffers if pfns], kick, session)
            kick.answer(batch.chains)
        return batch.more

    def _see_queues(self, host: Host, session: Session) -> None:
        """Tell where the driver keeps its queues, before anything that is in them."""
        if len(session.seen) == len(PAGE_QUEUES):
            return
        for index in PAGE_QUEUES:
            queue = host.queue(index)
            if queue is not None and index not in session.seen:
                session.seen.add(index)
                self._gatekeeper.observe(QueueSeen(int(index), queue.desc))

    def _inflate(self, buffers: Sequence[Pfns], kick: Kick, session: Session) -> None:
        told = session.terms.told
        self._inventory.inflate(buffers, kick.fault, kick.host, told=told)

    def _deflate(self, buffers: Sequence[Pfns], kick: Kick, _session: Session) -> None:
        self._inventory.deflate(buffers, kick.fault)

    # --- queues ---

    def _kick_of(self, role: Queue, host: Host, session: Session) -> Kick | None:
        roles = queues(session.offered or 0)
        if role not in roles:
            return None
        return self._kick(roles.index(role), host, session)

    def _kick(self, index: int, host: Host, session: Session) -> Kick | None:
        """Return a queue to be served, if the driver has started it.

        §2.1.2, MUST NOT consume buffers before DRIVER_OK (D15); §3.1.2, MUST support a
        legacy driver that uses the device before (D19).
        """
        queue = host.queue(index)
        early = not session.ready and not session.terms.legacy
        if queue is None or early or session.lost:
            return None
        return Kick(host, queue, index, partial(self.fault, session, index=index))

    def _close_lost(self, kick: Kick, session: Session) -> None:
        """Ask for a reset where the ring itself is lost: no queue is served after."""
        if kick.queue.broken is not None:
            session.lost = True
            kick.fault(kick.queue.broken)
            kick.host.needs_reset()
