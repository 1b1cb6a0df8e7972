"""The commands of QMP: a table of names, arguments and what is done.

Pure but for the device that a command is for. Commands of QEMU have its names, its
arguments and its error classes, so that its clients need not know whom they talk to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeAlias

from balloon_plugin.control.errors import CommandError
from balloon_plugin.control.site import PERIPHERAL, ControlledDevice, Site
from balloon_plugin.events import Answer, Verdict
from balloon_plugin.layouts import PAGE_SIZE

__all__ = ["COMMANDS", "Command", "plain_verdict"]

Arguments: TypeAlias = dict[str, Any]

_KINDS: Final = {int: "a whole number", str: "a text", object: "a value"}


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    :ivar run: does it, where the devices live.
    :ivar takes: its arguments and their types; each of them must be given.
    :ivar may_take: arguments that may be left out.
    """

    run: Callable[[Site, Arguments], Any]
    takes: Mapping[str, type] = field(default_factory=dict)
    may_take: Mapping[str, type] = field(default_factory=dict)

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
            value = arguments.get(name)
            if name in self.takes and name not in arguments:
                raise CommandError(f"{name!r} is missing: it is {_KINDS[kind]}")
            if name in arguments and kind is not object and type(value) is not kind:
                raise CommandError(f"{name!r} must be {_KINDS[kind]}")
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


# --- our own ------------------------------------------------------------------------


def _query_guests(site: Site, _arguments: Arguments) -> Any:
    """Return the guests that are served."""
    return [{"id": name, "qom-path": PERIPHERAL + name} for name in site.guests]


def _query_status(site: Site, arguments: Arguments) -> Any:
    """Return everything that a query of the device shows; pages are 4 KiB pages."""
    name = site.find(arguments.get("id"))
    status = site.guests[name].query()
    plain = {"id": name} | asdict(status)
    plain["verdict"] = plain_verdict(status.verdict)
    plain["gate"]["targets"] = status.gate.targets.value
    return plain


def _query_verdict(device: ControlledDevice, _arguments: Arguments) -> Any:
    """Return what the policy has concluded, with its evidence."""
    return plain_verdict(device.query().verdict)


def plain_verdict(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON can carry it."""
    plain: dict[str, Any] = {"judgement": verdict.judgement.value}
    plain["state"] = verdict.state
    plain["defects"] = [defect.name for defect in verdict.defects]
    plain["evidence"] = [asdict(item) for item in verdict.evidence]
    return plain


def _of_guest(
    run: Callable[[ControlledDevice, Arguments], Any], **takes: type
) -> Command:
    """Return a command for one guest, which need not be named if there is no other."""

    def run_for(site: Site, arguments: Arguments) -> Any:
        return run(site.guests[site.find(arguments.get("id"))], arguments)

    return Command(run_for, takes, {"id": str})


COMMANDS: Final[dict[str, Command]] = {
    "balloon": _of_guest(_balloon, value=int),
    "query-balloon": _of_guest(_query_balloon),
    "query-balloon-guests": Command(_query_guests),
    "query-balloon-status": Command(_query_status, may_take={"id": str}),
    "query-balloon-verdict": _of_guest(_query_verdict),
    "query-commands": Command(_query_commands),
    "query-version": Command(_query_version),
}
