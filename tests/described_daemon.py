"""A daemon without descriptors: what it was told, and what came of that, as values."""

from __future__ import annotations

import sys
from dataclasses import replace

from vhost_user_traces import CODES

from balloon_plugin.hosts.vhost_user import effects, messages
from balloon_plugin.hosts.vhost_user.protocol import Protocol
from balloon_plugin.hosts.vhost_user.rings import _Described

LOG_ALL = 1 << 26
NOTHING = _Described()


class Daemon:
    """The protocol, and who carries out its effects as far as they are state.

    :ivar words: what is in used rings, by the front end's address.
    """

    def __init__(self):
        self.protocol = Protocol()
        self.memory, self.notifiers, self.stands = {}, {}, {}
        self.running, self.held, self.logs = {}, {}, False
        self.accepted = 0
        self.words = {}
        self._replies = []
        self._table = {
            effects.Reply: lambda effect: self._replies.append(effect.data),
            effects.ReplyFeatures: self._reply_features,
            effects.ReplyBase: self._reply_base,
            effects.SetMemory: self._set_memory,
            effects.AddMemory: self._add_memory,
            effects.RemoveMemory: self._remove_memory,
            effects.SetNotifier: self._set_notifier,
            effects.SetBase: self._set_base,
            effects.StartQueue: self._start,
            effects.StopQueue: lambda effect: self.running.pop(effect.index),
            effects.LogDiscards: self._log_discards,
            effects.SetLog: self._hold,
            effects.SetLogNotifier: self._hold,
            effects.SetInflight: self._hold,
            effects.SetBackendChannel: self._hold,
        }

    def ask(self, asked):
        """Carry out a request, and return the reply, or ``None`` at the end."""
        data = messages.request(asked.code, asked.payload)
        turn = self.protocol.receive(data[:12], asked.fds, 0.0)
        turn = turn or self.protocol.receive(data[12:], (), 0.0)
        self._replies.clear()
        done = not turn.problem and all(map(self._carry_out, turn.effects))
        if done and asked.code == CODES["SET_FEATURES"]:
            self.accepted = int.from_bytes(asked.payload, sys.byteorder) & ~LOG_ALL
        if done and asked.code == CODES["RESET_DEVICE"]:
            self.accepted = 0
        if turn.acknowledge:
            self._replies = [turn.acknowledgement(success=done)]
        if not self._replies:
            return None
        (reply,) = self._replies
        assembler = messages.Assembler(replies=True)
        assembler.feed(reply[:12])
        return assembler.feed(reply[12:])

    def serve(self, index, count):
        """Return so many buffers of a queue that runs."""
        ring = self.running[index].ring
        self.stands[index] = (self.stands.get(index, 0) + count) & 0xFFFF
        word = self.stands[index].to_bytes(2, ring.byte_order.value)
        self.words[ring.used + 2] = word

    def look(self, fd, offset, size):
        """Return what is in a file that came with memory."""
        for mapped, of in self.memory.items():
            if of == fd:
                place = offset - mapped.offset + mapped.user_address
                return self.words.get(place, b"")[:size]
        return b""

    def described(self):
        """Return all that was told, and what came of it."""
        requests = self.protocol._requests
        rings = {
            index: ring
            for index, ring in requests._rings._rings.items()
            if replace(ring, base=None) != NOTHING
        }
        features = requests._session.features
        return {
            "protocol": requests.negotiated,
            "features": features,
            "status": requests._status,
            "memory": self.memory,
            "notifiers": {
                key: fd for key, fd in self.notifiers.items() if fd is not None
            },
            "rings": {index: replace(ring, base=None) for index, ring in rings.items()},
            "running": self.running,
            "stands": {
                index: self.stands.get(index, 0)
                for index, ring in rings.items()
                if ring.placed
            },
            "held": self.held,
            # Of features that nobody accepted since a reset there is no more to say.
            "logs": self.logs and bool(features),
        }

    @property
    def in_order(self):
        """Whether it was told of features for each driver, and of a queue's size first.

        Real front ends do.
        """
        rings = self.protocol._requests._rings
        return self.protocol._requests._session.features == self.accepted and all(
            ring.running == rings._should_run(ring) for ring in rings._rings.values()
        )

    # --- effects ---

    def _carry_out(self, effect):
        """Return whether it could be done; the device has no part in it."""
        return self._table.get(type(effect), lambda _: None)(effect) is not False

    def _reply_features(self, _effect):
        self._replies.append(self.protocol.features_reply(0))

    def _reply_base(self, effect):
        base = self.stands.get(effect.index, 0)
        self._replies.append(self.protocol.base_reply(effect.index, base))

    def _set_memory(self, effect):
        self.memory = dict(zip(effect.regions, effect.fds, strict=True))

    def _add_memory(self, effect):
        new = all(effect.region[:3] != old[:3] for old in self.memory)
        if new:
            self.memory[effect.region] = effect.fd
        return new

    def _remove_memory(self, effect):
        gone = [old for old in self.memory if old[:3] == effect.region[:3]]
        for region in gone:
            del self.memory[region]
        return bool(gone)

    def _set_notifier(self, effect):
        self.notifiers[effect.notifier, effect.index] = effect.fd

    def _set_base(self, effect):
        self.stands[effect.index] = effect.base

    def _start(self, effect):
        self.running[effect.index] = effect
        self.serve(effect.index, 0)

    def _log_discards(self, effect):
        self.logs = effect.on

    def _hold(self, effect):
        self.held[type(effect)] = effect
