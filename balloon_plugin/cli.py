"""The command line: arguments in, one call, exit code out.

Exit codes: 0 done, 1 it ran and did not come out as it should, 2 the request cannot be
carried out (with one sentence that says what to do), 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import logging
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from balloon_plugin import __version__, control, narrate, show
from balloon_plugin.boot.plan import Kind, Plan, Step
from balloon_plugin.boot.story import boot_uml
from balloon_plugin.calls import Device
from balloon_plugin.compare import Row, compare
from balloon_plugin.errors import BalloonError
from balloon_plugin.events import ByteOrder, Event
from balloon_plugin.guests.profiles import GUESTS, find
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.hosts.vhost_user.daemon import Daemon, Slot
from balloon_plugin.layouts import PAGE_SIZE
from balloon_plugin.manager import find_policies, make_device, make_policy

__all__ = ["main"]

DEFAULT_POLICY = "evidence"

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        code: int = arguments.run(arguments)
    except BalloonError as error:
        show.error(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return code


# --- arguments ----------------------------------------------------------------------


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMGT]?)(?:iB|B)?", text, re.IGNORECASE)
    if match is None:
        message = f"{text!r} is not a size: write bytes, or 512K, 128M, 2G"
        raise argparse.ArgumentTypeError(message)
    return int(match[1]) * _UNITS[match[2].upper()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="balloon-plugin",
        description="A virtio memory balloon that works out whether a guest's driver "
        "can be believed.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_compare, _add_boot, _add_serve, _add_ctl, _add_policies):
        add(commands)
    return parser


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    """Add a command whose help is ``text``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.set_defaults(run=run)
    return parser


def _add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy",
        default=DEFAULT_POLICY,
        metavar="NAME[:OPTION=VALUE,...]",
        help=f"what judges the driver (default: {DEFAULT_POLICY}); "
        "'balloon-plugin policies' lists them",
    )


# --- policies -----------------------------------------------------------------------


def _add_policies(commands: Any) -> None:
    _command(commands, "policies", _policies, "list the policies that are installed")


def _policies(_arguments: argparse.Namespace) -> int:
    rows = [
        (info.name, " ".join(info.options) or "-", info.origin, info.summary)
        for info in find_policies()
    ]
    show.table(("policy", "options", "from", "what it does"), rows)
    return 0


# --- compare ------------------------------------------------------------------------

_DEFAULT_COMPARISON = ("none", "probe", "feature-bit", "evidence")

_HEADS = (
    "guest",
    "policy",
    "verdict",
    "state",
    "",
    "harm",
    "taken",
    "parked",
    "steps",
    "usable",
    "because",
)


def _add_compare(commands: Any) -> None:
    parser = _command(
        commands, "compare", _compare, "put simulated guests under each policy"
    )
    parser.add_argument(
        "--guest",
        action="append",
        metavar="NAME",
        help="a guest (repeatable; default: all); see docs for their names",
    )
    parser.add_argument(
        "--policy",
        action="append",
        metavar="NAME[:OPTION=VALUE,...]",
        help="a policy (repeatable; default: all that come with this package)",
    )
    parser.add_argument("--json", action="store_true", help="print rows as JSON")


def _compare(arguments: argparse.Namespace) -> int:
    guests = [find(name) for name in arguments.guest or GUESTS]
    policies = arguments.policy or _DEFAULT_COMPARISON
    for policy in policies:
        make_policy(policy)
    rows = list(show.progress(compare(guests, policies), len(guests) * len(policies)))
    if arguments.json:
        print(json.dumps({"rows": [row.as_dict() for row in rows]}, indent=2))  # noqa: T201
        return 0
    show.table(_HEADS, [_cells(row) for row in rows], [_style(row) for row in rows])
    show.line("")
    show.line(_LEGEND)
    return 0


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.guest,
        row.policy,
        row.verdict,
        row.state,
        "right" if row.right else "WRONG",
        str(row.harm_pages or "-"),
        str(row.taken_pages or "-"),
        str(row.parked_pages or "-"),
        "-" if row.steps is None else str(row.steps),
        "yes" if row.usable else "no",
        row.evidence[-1] if row.evidence else "-",
    )


def _style(row: Row) -> str:
    return "red" if row.harm_pages else "" if row.right else "yellow"


_LEGEND = """\
harm: pages in use that the guest lost
taken: the most pages missing before anybody asked for a balloon
parked: pages still missing after all were asked back
steps: what the driver did until the verdict
usable: a balloon of 8 MiB was reached, and given back; all pages are of 4 KiB"""


# --- boot ---------------------------------------------------------------------------


def _add_boot(commands: Any) -> None:
    boot = commands.add_parser("boot", help="boot a real guest and watch its balloon")
    machines = boot.add_subparsers(metavar="MACHINE", required=True)
    parser = _command(machines, "uml", _boot_uml, "boot User-Mode Linux")
    _add_policy(parser)
    parser.add_argument(
        "--target",
        type=_bytes,
        default=128 << 20,
        metavar="SIZE",
        help="the size of the balloon (default: 128M)",
    )
    parser.add_argument(
        "--mem",
        type=_bytes,
        default=512 << 20,
        metavar="SIZE",
        help="the guest's RAM (default: 512M)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long the whole may take (default: 60)",
    )


def _boot_uml(arguments: argparse.Namespace) -> int:
    plan = Plan(
        policy=arguments.policy,
        target=arguments.target // PAGE_SIZE,
        memory=arguments.mem,
        timeout=arguments.timeout,
    )
    with show.Ticker() as ticker:
        result = boot_uml(plan, lambda step: _tell(ticker, step))
    return result.ending.exit_code


_KIND_STYLES = {Kind.POLICY: "cyan", Kind.BALLOON: "green", Kind.PROBLEM: "red"}


def _tell(ticker: show.Ticker, step: Step) -> None:
    text = f"{step.at:7.3f} s  {step.kind.value:8}{step.text}"
    if step.kind is Kind.WAITING:
        ticker.wait(text)
    else:
        ticker.line(text, _KIND_STYLES.get(step.kind, ""))


# --- serve --------------------------------------------------------------------------


def _add_serve(commands: Any) -> None:
    parser = _command(commands, "serve", _serve, "serve vhost-user front ends")
    parser.add_argument(
        "--socket",
        type=Path,
        action="append",
        required=True,
        metavar="PATH",
        help="a socket to make and listen on; give several for several guests",
    )
    _add_policy(parser)
    parser.add_argument(
        "--target",
        type=_bytes,
        metavar="SIZE",
        help="the size of the balloon to begin with (512K, 128M, 2G)",
    )
    parser.add_argument(
        "--control",
        type=Path,
        metavar="PATH",
        help="a QMP socket to make, through which the target can be changed; with "
        "several sockets the first has this path, the others .1, .2 ... after it",
    )
    parser.add_argument(
        "--byte-order",
        choices=[order.value for order in ByteOrder],
        help="of the guests' CPU, if you know it",
    )
    parser.add_argument(
        "--page-size", type=_bytes, metavar="SIZE", help="of the guests' kernel"
    )


def _serve(arguments: argparse.Namespace) -> int:
    """Serve until interrupted or terminated."""
    order = ByteOrder(arguments.byte_order) if arguments.byte_order else None
    with Daemon() as daemon, contextlib.ExitStack() as stack:
        for i, path in enumerate(arguments.socket):
            slot = daemon.add(
                path,
                functools.partial(_make, arguments.policy, path.name),
                byte_order=order,
                page_size=arguments.page_size,
            )
            if arguments.target is not None:
                slot.device.set_target(arguments.target // PAGE_SIZE)
            if arguments.control:
                stack.enter_context(_control(daemon, slot, arguments.control, i))
            show.line(f"{path}: waiting for a front end (policy {arguments.policy})")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: daemon.stop())
        daemon.run()
    return 0


class _Narrator:
    """An observer that tells an operator the news of one device."""

    def __init__(self, name: str) -> None:
        self._name = name

    @hookimpl
    def balloon_event(self, event: Event) -> None:
        if narrate.is_news(event):
            show.line(f"{self._name}: {narrate.sentence(event)}")


def _make(policy: str, name: str) -> Device:
    return make_device(policy, observers=[_Narrator(name)])


def _control(
    daemon: Daemon, slot: Slot, path: Path, number: int
) -> control.ControlServer:
    """Make the control socket of one device; commands run in the daemon's thread."""
    own = path.with_name(f"{path.name}.{number}") if number else path
    return control.ControlServer(
        own, lambda function: daemon.call(lambda: function(slot.device))
    )


# --- ctl ----------------------------------------------------------------------------


def _add_ctl(commands: Any) -> None:
    parser = _command(commands, "ctl", _ctl, "talk to a device that is being served")
    parser.add_argument("control", type=Path, help="serve's --control path")
    what = parser.add_subparsers(metavar="WHAT", required=True)
    balloon = what.add_parser("balloon", help="leave the guest SIZE of its memory")
    balloon.add_argument("size", type=_bytes, metavar="SIZE")
    balloon.set_defaults(ask=lambda given: ("balloon", {"value": given.size}))
    for name, command, text in (
        ("query", "query-balloon-status", "show all that is known of the device"),
        ("verdict", "query-balloon-verdict", "show the verdict with its evidence"),
    ):
        query = what.add_parser(name, help=text)
        query.set_defaults(ask=lambda _given, command=command: (command, {}))


def _ctl(arguments: argparse.Namespace) -> int:
    command, values = arguments.ask(arguments)
    answer = control.ask(arguments.control, command, values)
    if answer:
        show.line(json.dumps(answer, indent=2))
    return 0
