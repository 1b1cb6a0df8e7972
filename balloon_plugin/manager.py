"""Making devices: one plugin manager per device, checked before use.

There is no manager at module level: two devices, or two policies over the same guest,
must not see each other. Built-in policies are found through the same entry-point group
as a stranger's, and get no privileges.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

import pluggy

from balloon_plugin import hookspecs
from balloon_plugin.calls import Device, ObserverCalls, PolicyCalls
from balloon_plugin.device import Balloon
from balloon_plugin.errors import BalloonError, PluginError
from balloon_plugin.features import DeviceOptions
from balloon_plugin.gatekeeper import Gatekeeper
from balloon_plugin.hookspecs import PROJECT

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from types import ModuleType

    from pluggy import HookimplOpts, HookspecOpts

__all__ = [
    "POLICY_GROUP",
    "PolicyInfo",
    "change_policy",
    "find_policies",
    "make_device",
    "make_gatekeeper",
    "make_policy",
    "policy_factory",
]

POLICY_GROUP = f"{PROJECT}.policies"
"""Entry-point group of policies: each entry is a factory that takes keyword options."""


def make_device(
    policy: str | object = "evidence",
    *,
    observers: Iterable[object] = (),
    name: str | None = None,
    options: DeviceOptions = DeviceOptions(),  # noqa: B008 - a frozen value
) -> Device:
    """Make a balloon device with a policy, ready to be realized by a host.

    :param policy: the name of a policy with its options (``probe:pages=16``), or an
        object that implements the policy hooks.
    :param observers: objects that implement ``balloon_event``.
    :param name: what to call a policy that is an object, instead of by its class.
    :param options: which features of a balloon the device offers.
    :raises PluginError: if the policy is unknown, cannot be made or breaks a contract.
    """
    with _fitting():
        calls, listeners, plugins = _gather(policy, observers, name)
        plugins.register(Balloon(calls, listeners, options), name=_DEVICE)
        plugins.check_pending()
    return Device(plugins, listeners)


def make_gatekeeper(
    policy: str | object,
    *,
    observers: Iterable[object] = (),
    name: str | None = None,
) -> Gatekeeper:
    """Make a policy with its gate and no device: to be shown events, and asked.

    The parameters and errors are those of :func:`make_device`.
    """
    with _fitting():
        calls, listeners, plugins = _gather(policy, observers, name)
        plugins.check_pending()
    return Gatekeeper(calls, listeners, announce=lambda: None)


@contextlib.contextmanager
def _fitting() -> Iterator[None]:
    try:
        yield
    except (ValueError, pluggy.PluginValidationError) as error:
        message = f"a plugin does not fit its hooks: {error}"
        raise PluginError(message) from error


def _gather(
    policy: str | object, observers: Iterable[object], name: str | None
) -> tuple[PolicyCalls, ObserverCalls, pluggy.PluginManager]:
    """Bring a policy and its observers together in a manager of their own."""
    name, plugin = _named(policy, name)
    plugins = _Plugins(PROJECT)
    plugins.add_hookspecs(hookspecs)
    plugins.register(plugin, name=name)
    _check_complete(plugins, plugin, name)
    for observer in observers:
        _register_observer(plugins, observer)
    return PolicyCalls(plugins, name), ObserverCalls(plugins), plugins


class _Plugins(pluggy.PluginManager):
    """A plugin manager that looks for hooks only where there can be any.

    pluggy asks about every attribute, what comes from ``object`` and what a module has
    imported included; that is half of what a device costs to make.
    """

    def parse_hookimpl_opts(self, plugin: object, name: str) -> HookimplOpts | None:
        dunder = name.startswith("__")
        return None if dunder else super().parse_hookimpl_opts(plugin, name)

    def parse_hookspec_opts(
        self, module_or_class: type | ModuleType, name: str
    ) -> HookspecOpts | None:
        if not inspect.isfunction(getattr(module_or_class, name)):
            return None
        return super().parse_hookspec_opts(module_or_class, name)


def change_policy(
    device: Device, policy: str | object, *, name: str | None = None
) -> None:
    """Let another policy judge the driver of a device that is in use.

    Call it where the device lives, between two of its hooks. What the new policy is
    shown and when the balloon is held is said at the hook ``set_policy``.

    :param device: a device that is realized.
    :param policy: as for :func:`make_device`.
    :param name: as for :func:`make_device`.
    :raises PluginError: if the policy is unknown, cannot be made or breaks a contract.
    :raises HostError: if the driver was not offered the policy's feature bits. After
        either error the old policy judges on.
    """
    name, plugin = _named(policy, name)
    plugins = device.plugins
    old_name = device.query().policy
    old = plugins.unregister(name=old_name)
    try:
        with _fitting():
            plugins.register(plugin, name=name)
            _check_complete(plugins, plugin, name)
            device.set_policy(name)
    except BalloonError:
        if plugins.get_plugin(name) is plugin:
            plugins.unregister(plugin)
        plugins.register(old, name=old_name)
        raise


def _named(policy: str | object, name: str | None) -> tuple[str, object]:
    """Return a policy, made if need be, with what to call it."""
    if isinstance(policy, str):
        return policy, make_policy(policy)
    _check_made(policy)
    return name or type(policy).__name__, policy


def _check_made(plugin: object) -> None:
    """Refuse a class: pluggy would take it, and call its methods without an object."""
    if isinstance(plugin, type):
        what = plugin.__name__
        message = f"{what} is a class: give an object that is made of it, {what}()"
        raise PluginError(message)


def _check_complete(plugins: pluggy.PluginManager, plugin: object, name: str) -> None:
    """Refuse a policy that leaves out a hook, or answers those of the device."""
    implemented = {caller.name for caller in plugins.get_hookcallers(plugin) or ()}
    missing = [hook for hook in _NEEDED if hook not in implemented]
    if missing:
        message = (
            f"{name} is not a policy: it must implement {', '.join(missing)}, "
            "marked with balloon_plugin.hookimpl"
        )
        raise PluginError(message)
    others = sorted(hook for hook in implemented if not hook.startswith(_ITS_OWN))
    if others:
        raise PluginError(f"{name} is a policy, but implements {', '.join(others)} too")


def _register_observer(plugins: pluggy.PluginManager, observer: object) -> None:
    """Refuse an observer that implements more than its hook: it may not meddle."""
    _check_made(observer)
    plugins.register(observer)
    implemented = {caller.name for caller in plugins.get_hookcallers(observer) or ()}
    if not implemented:
        raise PluginError(
            f"{observer!r} is to observe, but sees nothing: it must implement "
            "balloon_event, marked with balloon_plugin.hookimpl"
        )
    if implemented != {"balloon_event"}:
        others = ", ".join(sorted(implemented - {"balloon_event"}))
        raise PluginError(f"{observer!r} is to observe, but implements {others} too")


_NEEDED = ("policy_observe", "policy_gate", "policy_verdict")
_ITS_OWN = ("policy_", "balloon_event")
_DEVICE = "balloon device"


# --- finding policies ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """One policy that is installed.

    :ivar name: what to call it by.
    :ivar summary: the first line of its documentation, or why it cannot be loaded.
    :ivar options: its options with their defaults (``pages=16``), or without where it
        has none.
    :ivar origin: the distribution that brought it.
    """

    name: str
    summary: str
    options: tuple[str, ...]
    origin: str


def find_policies() -> list[PolicyInfo]:
    """Return every installed policy by name, broken ones included."""
    return [_describe(entry) for entry in _entries()]


def make_policy(text: str) -> object:
    """Make a policy from its name and options (``probe:pages=16``).

    :raises PluginError: with the names or options that exist, if these do not.
    """
    return policy_factory(text)()


def policy_factory(text: str) -> Callable[[], object]:
    """Return what makes policies of this name and options, for those who make many.

    :raises PluginError: if there is none; also when it is called, if it fails.
    """
    name, _, options = text.partition(":")
    factory, known_options = _open(_entry(name))
    arguments = dict(_split(text, option) for option in options.split(",") if option)
    known = [option.partition("=")[0] for option in known_options]
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        message = (
            f"the policy {name} has no option {unknown[0]}; "
            f"it has {', '.join(known) or 'none'}"
        )
        raise PluginError(message)
    return functools.partial(_made, text, factory, arguments)


def _made(
    text: str, factory: Callable[..., object], arguments: dict[str, str]
) -> object:
    try:
        return factory(**arguments)
    except PluginError:
        raise
    except Exception as error:
        why = str(error) or type(error).__name__
        message = f"the policy {text} cannot be made: {why}"
        raise PluginError(message) from error


def _entries() -> list[EntryPoint]:
    # Sockets, e-mail and archives come with it: a quarter of what an import takes.
    from importlib.metadata import entry_points  # noqa: PLC0415

    return sorted(entry_points(group=POLICY_GROUP), key=lambda entry: entry.name)


def _entry(name: str) -> EntryPoint:
    found = {entry.name: entry for entry in _entries()}
    if name in found:
        return found[name]
    near = get_close_matches(name, found, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(found)}"
    message = f"there is no policy {name!r}; {hint}"
    raise PluginError(message)


def _open(entry: EntryPoint) -> tuple[Callable[..., object], tuple[str, ...]]:
    """Return the factory behind an entry point, and its options with their defaults."""
    what = f"the policy {entry.name} ({entry.value})"
    try:
        factory: object = entry.load()
    except Exception as error:
        message = f"{what} cannot be loaded: {error}"
        raise PluginError(message) from error
    if not callable(factory):
        message = f"{what} is no factory to be called"
        raise PluginError(message)
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError as error:
        message = f"{what} does not say what its options are"
        raise PluginError(message) from error
    return factory, tuple(_option(item) for item in parameters if item.kind in _NAMED)


def _option(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return parameter.name
    return f"{parameter.name}={parameter.default}"


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
"""Parameters that an option can be: what a user writes has a name."""


def _split(text: str, option: str) -> tuple[str, str]:
    key, equals, value = option.partition("=")
    if not (key and equals):
        message = f"{text!r}: options are written NAME:option=value,option=value"
        raise PluginError(message)
    return key.strip().replace("-", "_"), value.strip()


def _describe(entry: EntryPoint) -> PolicyInfo:
    origin = entry.dist.name if entry.dist else "?"
    try:
        factory, options = _open(entry)
    except PluginError as error:
        return PolicyInfo(entry.name, str(error), (), origin)
    summary = (inspect.getdoc(factory) or "no description").splitlines()[0]
    return PolicyInfo(entry.name, summary, options, origin)
