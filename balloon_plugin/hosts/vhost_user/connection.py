"""One front end: its socket, and the effects that its messages have.

The thin edge around :class:`~balloon_plugin.hosts.vhost_user.protocol.Protocol`. It
reads messages with their file descriptors, carries out what the automaton asks for, and
sees to it that no descriptor outlives the connection.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from balloon_plugin.calls import Device
from balloon_plugin.errors import HostError
from balloon_plugin.hosts.vhost_user import doorbells, effects
from balloon_plugin.hosts.vhost_user.channel import BackendChannel
from balloon_plugin.hosts.vhost_user.effects import Effect, Notifier
from balloon_plugin.hosts.vhost_user.files import RefusalError
from balloon_plugin.hosts.vhost_user.host import SlotHost
from balloon_plugin.hosts.vhost_user.keeper import Keeper
from balloon_plugin.hosts.vhost_user.loop import Loop
from balloon_plugin.hosts.vhost_user.migration import Migration
from balloon_plugin.hosts.vhost_user.protocol import Protocol, Turn
from balloon_plugin.hosts.vhost_user.requests import MAX_MEMORY_SLOTS
from balloon_plugin.hosts.vhost_user.resumption import Resumption
from balloon_plugin.hosts.vhost_user.tracking import make_buffer
from balloon_plugin.hosts.vhost_user.turns import Turns, guarded
from balloon_plugin.hosts.vhost_user.wire import LostError, Wire

__all__ = ["MAX_REFUSALS", "Connection"]

_log = logging.getLogger(__name__)

MAX_REFUSALS: Final = 64
"""Messages refused before the connection ends, so that nonsense cannot fill a log."""

_MESSAGES_AT_ONCE: Final = 16
"""Reads from one socket before others have a turn; a message takes one or two."""


class Connection:
    """A front end that is connected to a slot.

    :param sock: the socket, already accepted.
    :param device: the slot's device.
    :param host: the slot's host, which holds what this front end gives.
    :param loop: calls back.
    :param keeper: keeps the driver session while no front end is connected.
    :param on_close: called once, when the connection has ended.
    """

    def __init__(
        self,
        sock: socket.socket,
        device: Device,
        host: SlotHost,
        loop: Loop,
        keeper: Keeper,
        on_close: Callable[[], None],
    ) -> None:
        self.open = True
        self.name = host.name
        self._wire = Wire(sock)
        self._device = device
        self._host = host
        self._loop = loop
        self._keeper = keeper
        self._on_close = on_close
        parked = keeper.parked
        self._protocol = Protocol(
            host.byte_order,
            effects.Resume(parked.features, parked.ready) if parked else None,
        )
        self._channel = BackendChannel(self._protocol)
        self._resumption = Resumption(device, host, self._protocol, keeper)
        self._turns = Turns(loop, self._serve_waiting)
        self._migration = Migration(
            self.name, self._wire, self._protocol, keeper, loop, self._transferred
        )
        self._refusals = 0
        self._timer = False
        self._handlers = self._table()
        host.on_config_change = self._channel.announce
        host.on_needs_reset = self._protocol.needs_reset
        loop.watch(self._wire.fd, self._readable)

    def hung_up(self) -> bool:
        """Return whether the front end went, though nobody has noticed yet."""
        return self._wire.hung_up()

    @property
    def announced(self) -> int:
        """How often the front end was told of a change."""
        return self._channel.announced

    @property
    def unread(self) -> bool:
        """Whether it has yet to read that."""
        return self._channel.unread

    @guarded
    def tick(self) -> None:
        """Let time pass; look into queues for which no kick will ever come."""
        self._device.tick()
        self._keeper.keep()
        for index, vring in enumerate(self._host.vrings):
            if vring.queue is not None and Notifier.KICK not in vring.fds:
                self._turns.soon(index)

    def abandon(self) -> None:
        """Keep nothing of the driver session: it cannot be taken up again."""
        self._keeper.abandon()

    def is_torn(self) -> bool:
        """Return whether memory was found gone that the front end had given."""
        return self._host.torn

    def close(self, why: str, level: int = logging.WARNING) -> None:
        """End the connection and the driver session with it."""
        if not self.open:
            return
        self.open = False
        _log.log(level, "%s: %s", self.name, why)
        for fd in (self._wire.fd, *self._kicks()):
            self._loop.ignore(fd)
        self._tell(self._keeper.park)
        # The driver is there still: what is in flight stays on record.
        self._host.stop()
        self._tell(lambda: self._perform(self._protocol.end()))
        self._host.disconnect()
        self._channel.close()
        self._migration.end()
        self._wire.close()
        self._tell(self._device.guest_changed)
        self._tell(self._keeper.keep)
        self._on_close()

    def _tell(self, hook: Callable[[], None]) -> None:
        """Tell the device something on the way out, which leads on if it fails."""
        try:
            hook()
        except HostError as error:
            _log.warning("%s: %s", self.name, error)
        except Exception:  # noqa: BLE001 - whatever it is, nothing may leak
            _log.exception("%s: the device failed", self.name)

    # --- messages -------------------------------------------------------------------

    @guarded
    def _readable(self) -> None:
        for _ in range(_MESSAGES_AT_ONCE):
            received = self._wire.receive(self._protocol.wanted)
            if received is None:
                return
            turn = self._protocol.receive(*received, time.monotonic())
            if turn is not None:
                self._take(turn)

    def _take(self, turn: Turn) -> None:
        """Carry out what a message leads to, and acknowledge it."""
        problem, fatal = turn.problem, turn.fatal
        if not problem:
            try:
                self._perform(turn.effects)
            except RefusalError as refusal:
                problem, fatal = str(refusal), not turn.acknowledge
        self._wire.close_loose()
        self._keeper.keep()
        if problem:
            self._refuse(problem, fatal=fatal)
        if turn.acknowledge:
            self._wire.send(turn.acknowledgement(success=not problem))
        self._set_timer()

    def _refuse(self, problem: str, *, fatal: bool) -> None:
        self._refusals += 1
        if fatal:
            raise LostError(f"the connection ends: {problem}")
        if self._refusals >= MAX_REFUSALS:
            raise LostError(f"the connection ends after much nonsense: {problem}")
        _log.warning("%s: %s", self.name, problem)

    # --- time -----------------------------------------------------------------------

    def _set_timer(self) -> None:
        deadline = self._protocol.deadline
        if deadline is not None and not self._timer:
            self._timer = True
            self._loop.at(deadline, self._settle)

    @guarded
    def _settle(self) -> None:
        self._timer = False
        self._perform(self._protocol.settle(time.monotonic()))
        self._set_timer()

    def rest(self, seconds: float) -> None:
        """Leave the daemon's time to others for a while."""
        if self._turns.resting or not self.open:
            return
        for fd in (self._wire.fd, *self._kicks()):
            self._loop.ignore(fd)
        self._turns.rest(seconds, self._wake)

    @guarded
    def _wake(self) -> None:
        self._loop.watch(self._wire.fd, self._readable)
        for index, vring in enumerate(self._host.vrings):
            if Notifier.KICK in vring.fds:
                self._watch_kick(index, vring.fds[Notifier.KICK])
        self._turns.wake()

    # --- queues ---------------------------------------------------------------------

    def _kicks(self) -> list[int]:
        fds = (vring.fds.get(Notifier.KICK) for vring in self._host.vrings)
        return [fd for fd in fds if fd is not None]

    @guarded
    def _kicked(self, index: int, fd: int) -> None:
        if not doorbells.answer(fd):
            # The far end of a pipe is closed: it would be readable for ever.
            self._loop.ignore(fd)
        if not self._turns.waits(index):
            self._serve(index)

    def _serve(self, index: int) -> None:
        """Serve a queue once; if more waits, again after all others."""
        if self._host.queue(index) is not None and self._device.queue_notify(index):
            self._turns.soon(index)

    def _watch_kick(self, index: int, fd: int) -> None:
        self._loop.watch(fd, functools.partial(self._kicked, index, fd))

    @guarded
    def _serve_waiting(self, index: int) -> None:
        if self._turns.take(index):
            self._serve(index)

    # --- effects --------------------------------------------------------------------

    def _perform(self, todo: Iterable[Effect]) -> None:
        """Carry out effects in order, up to one that is refused.

        :raises RefusalError: if one is.
        """
        for effect in todo:
            self._handlers[type(effect)](effect)

    def _table(self) -> dict[type[Effect], Callable[[Any], object]]:
        """Return what carries out each effect."""
        device, host, protocol = self._device, self._host, self._protocol
        return {
            effects.Reply: lambda effect: self._wire.send(effect.data),
            effects.ReplyFeatures: lambda _: self._wire.send(
                protocol.features_reply(device.get_features())
            ),
            effects.ReplyConfig: self._reply_config,
            effects.ReplyBase: self._reply_base,
            effects.ReplyInflight: self._reply_inflight,
            effects.SaveState: lambda effect: self._migration.save(effect.fd),
            effects.LoadState: lambda effect: self._migration.load(effect.fd),
            effects.CheckState: lambda _: self._migration.check(),
            effects.SetLog: lambda effect: host.log.replace(effect.log, effect.fd),
            effects.SetLogNotifier: self._set_log_notifier,
            effects.LogDiscards: self._log_discards,
            effects.SetMemory: self._set_memory,
            effects.AddMemory: self._add_memory,
            effects.RemoveMemory: self._remove_memory,
            effects.StartQueue: self._start_queue,
            effects.StopQueue: lambda effect: host.stop_queue(effect.index),
            effects.SetBase: self._set_base,
            effects.SetInflight: lambda effect: host.inflight.replace(
                effect.described, effect.fd
            ),
            effects.SetNotifier: self._set_notifier,
            effects.SetBackendChannel: self._set_backend_channel,
            effects.DescribeGuest: self._describe_guest,
            effects.ResetDevice: self._reset_device,
            effects.Resume: self._resumption.resume,
            effects.GuestChanged: lambda _: device.guest_changed(),
            effects.SetFeatures: lambda effect: device.set_features(effect.features),
            effects.DriverReady: lambda _: device.driver_ready(),
            effects.SetConfig: lambda effect: device.set_config(
                effect.offset, effect.data
            ),
        }

    def _reply_config(self, effect: effects.ReplyConfig) -> None:
        data = self._device.get_config(effect.offset, effect.size)
        self._keeper.keep()
        self._wire.send(self._protocol.config_reply(effect, data))

    def _reply_base(self, effect: effects.ReplyBase) -> None:
        base = self._host.vrings[effect.index].base
        self._wire.send(self._protocol.base_reply(effect.index, base))

    def _reply_inflight(self, effect: effects.ReplyInflight) -> None:
        described, fd = make_buffer(effect.num_queues, effect.queue_size)
        try:
            self._wire.send(self._protocol.inflight_reply(effect, described), [fd])
        finally:
            os.close(fd)

    def _set_memory(self, effect: effects.SetMemory) -> None:
        mapped = self._host.mapped
        self._change_memory(
            lambda: mapped.replace(effect.regions, effect.fds), effect.fds
        )

    def _add_memory(self, effect: effects.AddMemory) -> None:
        mapped = self._host.mapped
        self._change_memory(
            lambda: mapped.add(effect.region, effect.fd, MAX_MEMORY_SLOTS), [effect.fd]
        )

    def _remove_memory(self, effect: effects.RemoveMemory) -> None:
        self._change_memory(lambda: self._host.mapped.remove(effect.region), [])

    def _change_memory(self, change: Callable[[], None], fds: Iterable[int]) -> None:
        """Change memory under queues that run; they go on where they stood."""
        self._host.suspend()
        try:
            change()
        except RefusalError:
            self._host.resume()
            raise
        for fd in fds:
            self._wire.own(fd)
        self._host.resume()

    def _log_discards(self, effect: effects.LogDiscards) -> None:
        self._host.log.discards = effect.on

    def _set_log_notifier(self, effect: effects.SetLogNotifier) -> None:
        try:
            self._host.log.set_notifier(effect.fd)
        except OSError as error:
            raise RefusalError(f"the log's eventfd is of no use: {error}") from error
        self._wire.own(effect.fd)

    def _start_queue(self, effect: effects.StartQueue) -> None:
        self._host.start(effect.index, effect.ring)
        self._host.vrings[effect.index].log = effect.log
        self._host.mark_ring(effect.index)
        self._resumption.return_owed(effect.index)
        # Its kick may have come and gone before the queue ran.
        self._turns.soon(effect.index)

    def _set_base(self, effect: effects.SetBase) -> None:
        self._host.vrings[effect.index].base = effect.base

    def _set_notifier(self, effect: effects.SetNotifier) -> None:
        index, fd, is_kick = effect.index, effect.fd, effect.notifier is Notifier.KICK
        vring = self._host.vrings[index]
        if is_kick and Notifier.KICK in vring.fds:
            self._loop.ignore(vring.fds[Notifier.KICK])
        try:
            vring.set_fd(effect.notifier, fd)
            if fd is None:
                return
            self._wire.own(fd)
            if is_kick:
                self._watch_kick(index, fd)
        except OSError as error:
            raise RefusalError(
                f"the {effect.notifier.value} of queue {index} is of no use: {error}"
            ) from error

    def _set_backend_channel(self, effect: effects.SetBackendChannel) -> None:
        self._channel.replace(effect.fd)
        self._wire.own(effect.fd)

    def _describe_guest(self, effect: effects.DescribeGuest) -> None:
        self._host.front_end_byte_order = effect.byte_order

    def _reset_device(self, _effect: effects.ResetDevice) -> None:
        self._host.inflight.forget()
        self._device.reset()

    @guarded
    def _transferred(self, result: bytes | None) -> None:
        self._migration.finish(result)
