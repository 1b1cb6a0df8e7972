"""Typed calls of the hooks: what a host holds, and what the device holds.

pluggy's relay takes any name and returns ``Any``. Here stands one method per hook, so
that a type checker sees hosts and the device. This is also where a failing plugin is
cut off:
:class:`PolicyCalls` fails closed (rule 7 of the architecture), :class:`ObserverCalls`
drops the one observer that raised.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, TypeVar

import pluggy

from balloon_plugin.errors import PluginError
from balloon_plugin.events import (
    Answer,
    Defect,
    Event,
    Evidence,
    Gate,
    Judgement,
    PluginFailed,
    TargetReply,
    Translation,
    Verdict,
)
from balloon_plugin.hookspecs import Host
from balloon_plugin.layouts import DEVICE_FEATURES_MASK
from balloon_plugin.status import Status

__all__ = ["Device", "ObserverCalls", "PolicyCalls"]

_T = TypeVar("_T")


class Device:
    """One balloon device as a host sees it: a method per device hook.

    Made by :func:`balloon_plugin.make_device`. The contract of each method is that of
    the hook of the same name in :mod:`balloon_plugin.hookspecs`.

    :ivar plugins: the device's own plugin manager, for registering observers and
        whatever else a host wants to add.
    :ivar observers: the calls of all who listen, for an observer that has something to
        tell the others.
    """

    def __init__(self, plugins: pluggy.PluginManager, observers: ObserverCalls) -> None:
        self.plugins = plugins
        self.observers = observers
        self._hook = plugins.hook

    def realize(self, host: Host) -> None:
        """Bring the device to life in ``host``."""
        self._hook.realize(host=host)

    def unrealize(self) -> None:
        """Let go of the host."""
        self._hook.unrealize()

    def reset(self) -> None:
        """End the driver session."""
        self._hook.reset()

    def get_features(self) -> int:
        """Return the device-type feature bits to offer."""
        return self._result(self._hook.get_features(), int)

    def set_features(self, features: int) -> None:
        """Take the feature bits that the driver accepted."""
        self._hook.set_features(features=features)

    def driver_ready(self) -> None:
        """Say that the driver set DRIVER_OK."""
        self._hook.driver_ready()

    def get_config(self, offset: int, size: int) -> bytes:
        """Return bytes of the configuration space."""
        return self._result(self._hook.get_config(offset=offset, size=size), bytes)

    def set_config(self, offset: int, data: bytes) -> None:
        """Take bytes that the driver wrote to the configuration space."""
        self._hook.set_config(offset=offset, data=data)

    def queue_notify(self, index: int) -> bool:
        """Serve a queue; return whether more buffers wait."""
        return self._result(self._hook.queue_notify(index=index), bool)

    def set_target(self, num_pages: int) -> TargetReply:
        """Ask for ``num_pages`` pages in the balloon."""
        return self._result(self._hook.set_target(num_pages=num_pages), TargetReply)

    def query(self) -> Status:
        """Return all that is known of the device now."""
        return self._result(self._hook.query(), Status)

    def set_stats_interval(self, seconds: int) -> None:
        """Ask the driver for statistics every so many seconds, or never (0)."""
        self._hook.set_stats_interval(seconds=seconds)

    def set_inhibited(self, reason: str | None) -> None:
        """Forbid discards for a reason, or allow them again (``None``)."""
        self._hook.set_inhibited(reason=reason)

    def start_hinting(self) -> int:
        """Ask the driver for hints at its free pages; return the command's id."""
        return self._result(self._hook.start_hinting(), int)

    def stop_hinting(self) -> None:
        """Let the driver use its hinted pages again."""
        self._hook.stop_hinting()

    def set_policy(self, name: str) -> None:
        """Say that another policy has taken the place of the one before."""
        self._hook.set_policy(name=name)

    def tick(self) -> None:
        """Let time pass."""
        self._hook.tick()

    def guest_changed(self) -> None:
        """Say that the host's memory or facts are others than before."""
        self._hook.guest_changed()

    def save(self) -> dict[str, Any]:
        """Return the whole driver session as a value that JSON can carry."""
        state: dict[str, Any] = self._result(self._hook.save(), dict)
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Take over a saved session."""
        self._hook.load(state=state)

    @staticmethod
    def _result(value: object, kind: type[_T]) -> _T:
        if isinstance(value, kind):
            return value
        message = (
            f"a device hook answered {value!r} where {kind.__name__} is promised: "
            "register a device plugin that implements it, and only one"
        )
        raise PluginError(message)


_NOTHING_SHOWN = Gate(0, reclaim=False, targets=Answer.DEFERRED)


class PolicyCalls:
    """The one policy of a device, as the device sees it; it fails closed.

    :param plugins: the manager in which the policy is registered.
    :param name: the name under which it is registered, for people.
    """

    def __init__(self, plugins: pluggy.PluginManager, name: str) -> None:
        self._hook = plugins.hook
        self.name = name
        self._last = _NOTHING_SHOWN
        self.failure: PluginFailed | None = None
        """The failure of this driver session, cleared by :meth:`reopen`."""

    def features(self) -> int:
        """Return the feature bits that the policy wants offered; 0 if it fails."""
        bits = self._call("policy_features")
        return bits & DEVICE_FEATURES_MASK if type(bits) is int and bits >= 0 else 0

    def observe(self, event: Event) -> None:
        """Show the policy one event, unless it failed in this session."""
        if self.failure is None:
            self._call("policy_observe", event=event)

    def gate(self, requested: int) -> Gate:
        """Return the policy's gate, or a shut one if it fails or failed."""
        if self.failure is None:
            gate = self._call("policy_gate", requested=requested)
            if isinstance(gate, Gate) and _is_sound(gate):
                self._last = gate
                return gate
            self._blame("policy_gate", f"returned {_text(gate)}, not a sound Gate")
        return self._shut()

    def verdict(self) -> Verdict:
        """Return the policy's verdict, or an undecided one if it fails or failed."""
        if self.failure is None:
            verdict = self._call("policy_verdict")
            if isinstance(verdict, Verdict) and _is_plain(verdict):
                return verdict
            self._blame(
                "policy_verdict", f"returned {_text(verdict)}, not a sound Verdict"
            )
        return Verdict(Judgement.UNDECIDED, "FAILED")

    def save(self) -> dict[str, Any] | None:
        """Return a copy of the policy's state, or ``None`` if it fails or failed."""
        state = self._call("policy_save") if self.failure is None else None
        return _copy(state) if isinstance(state, dict) else None

    def load(self, state: dict[str, Any]) -> bool:
        """Give the policy a copy of its saved state; return whether it took it."""
        copy = _copy(state)
        if copy is None or not self._hook.policy_load.get_hookimpls():
            return False
        try:
            self._hook.policy_load(state=copy)
        except Exception:  # noqa: BLE001 - a stranger's code: it did not take it
            return False
        return True

    def reopen(self) -> None:
        """Believe the policy again: a new driver session begins."""
        self.failure = None
        self._last = _NOTHING_SHOWN

    def succeed(self, name: str) -> None:
        """Call the policy that took this one's place by its name, and believe it."""
        self.name = name
        self.reopen()

    def _call(self, hook: str, **arguments: object) -> object:
        try:
            result: object = getattr(self._hook, hook)(**arguments)
        except Exception as error:  # noqa: BLE001 - rule 7: whatever it is, fail closed
            self._blame(hook, _text(error))
            return None
        return result

    def _blame(self, hook: str, error: str) -> None:
        if self.failure is None:
            self.failure = PluginFailed(self.name, hook, error)

    def _shut(self) -> Gate:
        """Return the gate of a policy that failed (rule 7).

        The target stays as it was last shown: to some drivers 0 does more harm.
        """
        error = self.failure.error if self.failure else ""
        reason = (
            f"the policy {self.name} failed ({error}); "
            "the balloon is shut until the driver is reset"
        )
        return replace(self._last, reclaim=False, targets=Answer.REFUSED, reason=reason)


class ObserverCalls:
    """Everyone who implements ``balloon_event``, each called apart from the others."""

    def __init__(self, plugins: pluggy.PluginManager) -> None:
        self._plugins = plugins
        self._hook = plugins.hook.balloon_event
        self._cut_off: list[object] = []

    def emit(self, event: Event) -> None:
        """Show the event to all observers; one that raises is called no more."""
        for implementation in self._hook.get_hookimpls():
            name, plugin = implementation.plugin_name, implementation.plugin
            if any(plugin is other for other in self._cut_off):
                continue
            try:
                # Straight to the function: one that raises must not silence the rest.
                implementation.function(*(event for _ in implementation.argnames))
            except Exception as error:  # noqa: BLE001 - a guest must not notice
                self._cut_off.append(plugin)
                self.emit(PluginFailed(name, "balloon_event", _text(error)))


def _is_sound(gate: Gate) -> bool:
    """Return whether the device can do what a gate says, whoever wrote it."""
    return (
        _is_a(int, gate.num_pages)
        and 0 <= gate.num_pages < 1 << 32
        and _is_a(int, gate.nudges)
        and (gate.entries is None or (_is_a(int, gate.entries) and gate.entries >= 0))
        and _is_a(bool, gate.reclaim)
        and _is_a(Answer, gate.targets)
        and _is_a(str, gate.reason)
        and _is_a(Translation, gate.translation)
        and gate.translation.is_sound
    )


def _is_a(kind: type, value: object) -> bool:
    return type(value) is kind


def _is_plain(verdict: Verdict) -> bool:
    """Return whether a verdict is made of what people and programs are promised."""
    return (
        _is_a(Judgement, verdict.judgement)
        and _is_a(str, verdict.state)
        and _is_a(tuple, verdict.defects)
        and _is_a(tuple, verdict.evidence)
        and all(_is_a(Defect, defect) for defect in verdict.defects)
        and all(_is_a(Evidence, item) for item in verdict.evidence)
    )


def _copy(state: dict[str, Any]) -> dict[str, Any] | None:
    """Return what JSON carries of a state, which the policy may go on changing."""
    try:
        copy: dict[str, Any] = json.loads(json.dumps(state))
    except (TypeError, ValueError, RecursionError):
        return None
    return copy


def _text(value: object) -> str:
    """Return a stranger's value or error as text, even if it cannot be shown."""
    try:
        if isinstance(value, Exception):
            return f"{type(value).__name__}: {value}"
        return repr(value)
    except Exception:  # noqa: BLE001 - its own words are not worth a guest
        return f"a {type(value).__name__} that cannot be shown"
