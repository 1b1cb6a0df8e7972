"""The commands of QMP: a table of names, arguments and what is done.

Pure but for the device that a command is for. Commands of QEMU have its names, its
arguments and its error classes, so that its clients need not know whom they talk to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from balloon_plugin.control.arguments import (
    ANY,
    TEXT,
    TEXT_OR_NULL,
    WHOLE_NUMBER,
    Arguments,
    Command,
    Kind,
)
from balloon_plugin.control.errors import CommandError
from balloon_plugin.control.objects import qom_get, qom_list, qom_set
from balloon_plugin.control.plain import plain_status, plain_verdict
from balloon_plugin.control.site import PERIPHERAL, ControlledDevice, Site
from balloon_plugin.events import Answer
from balloon_plugin.layouts import PAGE_SIZE

__all__ = ["COMMANDS"]

# --- QEMU's -------------------------------------------------------------------------


def _balloon(device: ControlledDevice, arguments: Arguments) -> Any:
    """Set how many bytes of memory the guest is to keep, as QEMU's command does.

    QEMU returns nothing. Here it is told whether the target has to wait (rule 9).
    """
    value = arguments["value"]
    if value <= 0:
        raise CommandError(
            "a guest cannot be left without memory: give what it is to keep in bytes, "
            "all that it has for an empty balloon"
        )
    ram = device.query().ram
    if not ram:
        message = (
            "the guest's memory is not known: its front end has not connected, or the "
            "guest is starting: ask again when it runs"
        )
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
    """Return all that is known of one guest."""
    name = site.find(arguments.get("id"))
    plain = plain_status(site.guests[name].query())
    return {"id": name} | plain | site.about(name)


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


def _of_guest(
    run: Callable[[ControlledDevice, Arguments], Any], **takes: Kind
) -> Command:
    """Return a command for one guest, which need not be named if there is no other."""

    def run_for(site: Site, arguments: Arguments) -> Any:
        return run(site.guests[site.find(arguments.get("id"))], arguments)

    return Command(run_for, takes, {"id": TEXT})


COMMANDS: Final[dict[str, Command]] = {
    "balloon": _of_guest(_balloon, value=WHOLE_NUMBER),
    "query-balloon": _of_guest(_query_balloon),
    "query-balloon-guests": Command(_query_guests),
    "query-balloon-status": Command(_query_status, may_take={"id": TEXT}),
    "query-balloon-verdict": _of_guest(_query_verdict),
    "query-commands": Command(_query_commands),
    "query-version": Command(_query_version),
    "qom-get": Command(qom_get, {"path": TEXT, "property": TEXT}),
    "qom-list": Command(qom_list, {"path": TEXT}),
    "qom-set": Command(qom_set, {"path": TEXT, "property": TEXT, "value": ANY}),
    "x-hinting-start": _of_guest(_start_hinting),
    "x-hinting-stop": _of_guest(_stop_hinting),
    "x-inhibit": _of_guest(_inhibit, reason=TEXT_OR_NULL),
    "x-set-policy": Command(_set_policy, {"policy": TEXT}, {"id": TEXT}),
}
"""Every command by its name, except ``qmp_capabilities``, which is the monitor's."""
