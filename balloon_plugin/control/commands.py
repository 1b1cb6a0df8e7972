"""The commands of QMP: a table of names, arguments and what is done.

Pure but for the device that a command is for. Commands of QEMU have its names, its
arguments and its error classes, so that its clients need not know whom they talk to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, TypeAlias

from balloon_plugin.control.errors import CommandError
from balloon_plugin.control.site import PERIPHERAL, ControlledDevice, Site
from balloon_plugin.control.statistics import guest_stats, named
from balloon_plugin.events import Answer, Judgement, Verdict
from balloon_plugin.layouts import PAGE_SIZE

__all__ = ["COMMANDS", "Command", "plain_verdict"]

Arguments: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """What an argument must be.

    :ivar words: how to say it.
    :ivar types: the types of Python that JSON makes of it; none stands for any.
    """

    words: str
    types: tuple[type, ...] = ()

    def fits(self, value: object) -> bool:
        """Return whether a value is of this kind; true and false are no numbers."""
        return not self.types or type(value) in self.types


_ANY: Final = Kind("a value")
_TEXT: Final = Kind("a text", (str,))
_TEXT_OR_NULL: Final = Kind("a text, or null", (str, type(None)))
_WHOLE_NUMBER: Final = Kind("a whole number", (int,))


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    :ivar run: does it, where the devices live.
    :ivar takes: its arguments; each of them must be given.
    :ivar may_take: arguments that may be left out.
    """

    run: Callable[[Site, Arguments], Any]
    takes: Mapping[str, Kind] = field(default_factory=dict)
    may_take: Mapping[str, Kind] = field(default_factory=dict)

    def check(self, arguments: object) -> Arguments:
        """Return arguments that are as they should be.

        :raises CommandError: if one is missing, unknown or of another type.
        """
        if not isinstance(arguments, dict):
            raise CommandError("'arguments' must be an object")
        known = {**self.takes, **self.may_take}
        for name in arguments:
            if name not in known:
                raise CommandError(f"{name!r} is no argument of this command")
        for name, kind in known.items():
            if name in arguments and not kind.fits(arguments[name]):
                raise CommandError(f"{name!r} must be {kind.words}")
            if name in self.takes and name not in arguments:
                raise CommandError(f"{name!r} is missing: it is {kind.words}")
        return arguments


# --- QEMU's -------------------------------------------------------------------------


def _balloon(device: ControlledDevice, arguments: Arguments) -> Any:
    """Set how many bytes of memory the guest is to keep, as QEMU's command does.

    QEMU returns nothing. Here it is told whether the target has to wait (rule 9).
    """
    value = arguments["value"]
    if value < 0:
        raise CommandError("'value' must be the guest's memory in bytes, 0 or more")
    ram = device.query().ram
    if not ram:
        message = "the guest's memory is not known before a front end connects"
        raise CommandError(message, "DeviceNotActive")
    reply = device.set_target(max(0, ram - value // PAGE_SIZE))
    if reply.answer is Answer.REFUSED:
        raise CommandError(f"the target is refused: {reply.reason}")
    return asdict(reply) | {"answer": reply.answer.value}


def _query_balloon(device: ControlledDevice, _arguments: Arguments) -> Any:
    """Return the memory that the guest has now, in bytes."""
    status = device.query()
    if not status.driver:
        raise CommandError("no balloon driver has shown itself", "DeviceNotActive")
    return {"actual": (status.ram - status.balloon_pages) * PAGE_SIZE}


def _query_commands(_site: Site, _arguments: Arguments) -> Any:
    """Return the names of all commands."""
    return [{"name": name} for name in sorted(["qmp_capabilities", *COMMANDS])]


def _query_version(site: Site, _arguments: Arguments) -> Any:
    """Return what the greeting says."""
    return site.version_info()


# --- QEMU's object model -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Property:
    """A property of a balloon.

    :ivar kind: its type, in QEMU's word.
    :ivar get: returns its value.
    :ivar set: changes it, ``None`` if it cannot be changed.
    """

    kind: str
    get: Callable[[Site, ControlledDevice], Any]
    set: Callable[[ControlledDevice, Any], None] | None = None


def _set_interval(device: ControlledDevice, value: object) -> None:
    if type(value) is not int:
        raise CommandError("'value' must be a whole number of seconds, 0 for never")
    device.set_stats_interval(value)


_PROPERTIES: Final = {
    "guest-stats": _Property(
        "guest statistics", lambda site, device: guest_stats(device.query(), site.now())
    ),
    "guest-stats-polling-interval": _Property(
        "int", lambda _site, device: device.query().stats_interval, _set_interval
    ),
}


def _qom_list(site: Site, arguments: Arguments) -> Any:
    """Return what is under a path: the guests, or the properties of one."""
    if arguments["path"].rstrip("/") == PERIPHERAL.rstrip("/"):
        kind = "child<virtio-balloon-device>"
        return [{"name": name, "type": kind} for name in site.guests]
    site.find(arguments["path"])
    return [{"name": name, "type": each.kind} for name, each in _PROPERTIES.items()]


def _property(arguments: Arguments) -> _Property:
    name = arguments["property"]
    if name not in _PROPERTIES:
        raise CommandError(f"there is no property {name!r}; qom-list lists them")
    return _PROPERTIES[name]


def _qom_get(site: Site, arguments: Arguments) -> Any:
    """Return the value of a property."""
    device = site.guests[site.find(arguments["path"])]
    return _property(arguments).get(site, device)


def _qom_set(site: Site, arguments: Arguments) -> Any:
    """Change the value of a property."""
    device = site.guests[site.find(arguments["path"])]
    change = _property(arguments).set
    if change is None:
        raise CommandError(f"the property {arguments['property']!r} cannot be changed")
    change(device, arguments["value"])
    return {}


# --- our own ------------------------------------------------------------------------


def _query_guests(site: Site, _arguments: Arguments) -> Any:
    """Return the guests that are served."""
    return [{"id": name, "qom-path": PERIPHERAL + name} for name in site.guests]


def _query_status(site: Site, arguments: Arguments) -> Any:
    """Return everything that a query of the device shows; pages are 4 KiB pages."""
    name = site.find(arguments.get("id"))
    status = site.guests[name].query()
    plain = {"id": name} | asdict(replace(status, verdict=_NONE))
    plain["verdict"] = plain_verdict(status.verdict)
    plain["gate"]["targets"] = status.gate.targets.value
    if status.stats is not None:
        plain["stats"] = {"age": status.stats.age, "values": named(status)}
    return plain | site.about(name)


_NONE: Final = Verdict(Judgement.UNDECIDED, "")


def _query_verdict(device: ControlledDevice, _arguments: Arguments) -> Any:
    """Return what the policy has concluded, with its evidence."""
    return plain_verdict(device.query().verdict)


def _start_hinting(device: ControlledDevice, _arguments: Arguments) -> Any:
    """Ask the driver for hints at its free pages."""
    return {"command": device.start_hinting()}


def _stop_hinting(device: ControlledDevice, _arguments: Arguments) -> Any:
    """Let the driver use its hinted pages again."""
    device.stop_hinting()
    return {}


def _inhibit(device: ControlledDevice, arguments: Arguments) -> Any:
    """Forbid to give memory back for a reason, or allow it again (null)."""
    device.set_inhibited(arguments["reason"])
    return {}


def _set_policy(site: Site, arguments: Arguments) -> Any:
    """Let another policy judge the driver; answer what it says."""
    name = site.find(arguments.get("id"))
    site.change_policy(name, arguments["policy"])
    return plain_verdict(site.guests[name].query().verdict)


def plain_verdict(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON can carry it, whatever its policy wrote there."""
    plain: dict[str, Any] = {"judgement": verdict.judgement.value}
    plain["state"] = verdict.state
    plain["defects"] = [defect.name for defect in verdict.defects]
    plain["evidence"] = [
        {"event": str(item.event), "shows": str(item.shows)}
        for item in verdict.evidence
    ]
    return plain


def _of_guest(
    run: Callable[[ControlledDevice, Arguments], Any], **takes: Kind
) -> Command:
    """Return a command for one guest, which need not be named if there is no other."""

    def run_for(site: Site, arguments: Arguments) -> Any:
        return run(site.guests[site.find(arguments.get("id"))], arguments)

    return Command(run_for, takes, {"id": _TEXT})


COMMANDS: Final[dict[str, Command]] = {
    "balloon": _of_guest(_balloon, value=_WHOLE_NUMBER),
    "query-balloon": _of_guest(_query_balloon),
    "query-balloon-guests": Command(_query_guests),
    "query-balloon-status": Command(_query_status, may_take={"id": _TEXT}),
    "query-balloon-verdict": _of_guest(_query_verdict),
    "query-commands": Command(_query_commands),
    "query-version": Command(_query_version),
    "qom-get": Command(_qom_get, {"path": _TEXT, "property": _TEXT}),
    "qom-list": Command(_qom_list, {"path": _TEXT}),
    "qom-set": Command(_qom_set, {"path": _TEXT, "property": _TEXT, "value": _ANY}),
    "x-hinting-start": _of_guest(_start_hinting),
    "x-hinting-stop": _of_guest(_stop_hinting),
    "x-inhibit": _of_guest(_inhibit, reason=_TEXT_OR_NULL),
    "x-set-policy": Command(_set_policy, {"policy": _TEXT}, {"id": _TEXT}),
}
"""Every command by its name, except ``qmp_capabilities``, which is the monitor's."""
