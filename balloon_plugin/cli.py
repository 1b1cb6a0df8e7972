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
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from balloon_plugin import __version__, control, narrate, show
from balloon_plugin.boot.guest import Machine
from balloon_plugin.boot.plan import Kind, Plan, Step
from balloon_plugin.boot.qemu import BOARDS, QemuOptions, Transport, find_qemu
from balloon_plugin.boot.story import boot
from balloon_plugin.boot.uml import find_uml
from balloon_plugin.compare import compare, matrix, report, run
from balloon_plugin.compare.cases import cases
from balloon_plugin.compare.circumstances import find as circumstance
from balloon_plugin.compare.circumstances import listing
from balloon_plugin.compare.tally import HEADS, tally
from balloon_plugin.errors import BalloonError, HostError
from balloon_plugin.events import ByteOrder, Event
from balloon_plugin.guests.profiles import GUESTS, find
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.hosts.vhost_user.daemon import Daemon, Slot
from balloon_plugin.layouts import PAGE_SIZE
from balloon_plugin.manager import find_policies, make_device, make_policy

__all__ = ["main"]

_T = TypeVar("_T", ByteOrder, Transport)

DEFAULT_POLICY = "evidence"

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", level=arguments.log_level)
    try:
        code: int = arguments.run(arguments)
    except BalloonError as error:
        show.error(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Python flushes at its end, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


# --- arguments ----------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        show.error(f"{message}; see '{self.prog} --help'")
        sys.exit(2)


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMGT]?)(?:iB|B)?", text, re.IGNORECASE)
    if match is None:
        message = f"{text!r} is not a size: write bytes, or 512K, 128M, 2G"
        raise argparse.ArgumentTypeError(message)
    return int(match[1]) * _UNITS[match[2].upper()]


def _page_size(text: str) -> int:
    size = _bytes(text)
    if size < PAGE_SIZE or size & (size - 1):
        message = f"{text!r} is no size of a page: write 4K, 16K, 64K"
        raise argparse.ArgumentTypeError(message)
    return size


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if (seconds := float(text)) > 0:
            return seconds
    message = f"{text!r} is no time: write seconds, more than 0"
    raise argparse.ArgumentTypeError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
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
    parser.set_defaults(run=run, log_level=logging.WARNING)
    return parser


def _add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy",
        default=DEFAULT_POLICY,
        metavar="NAME[:OPTION=VALUE,...]",
        help=f"what judges the driver (default: {DEFAULT_POLICY}); "
        "'balloon-plugin policies' lists them",
    )


def _add_facts(parser: argparse.ArgumentParser) -> None:
    """Add what the host may know of a guest."""
    parser.add_argument(
        "--byte-order",
        choices=[order.value for order in ByteOrder],
        help="of the guest's CPU, if you know it",
    )
    parser.add_argument(
        "--page-size",
        type=_page_size,
        metavar="SIZE",
        help="of the guest's kernel, if you know it",
    )


def _member(kind: type[_T], value: str | None) -> _T | None:
    """Return what a choice stands for, or ``None`` if nothing was chosen."""
    return None if value is None else kind(value)


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
    parser.add_argument(
        "--circumstance",
        action="append",
        metavar="NAME[+NAME...]",
        help="what is special about the run (repeatable; default: nothing)",
    )
    parser.add_argument(
        "--circumstances", action="store_true", help="list what can be special"
    )
    parser.add_argument(
        "--trace", action="store_true", help="print every event of one run"
    )
    parser.add_argument(
        "--matrix",
        action="store_true",
        help="run every guest in every circumstance that makes sense, and count",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes for --matrix (default: as many as there are processors)",
    )
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="with --matrix, put the table where FILE has its markers",
    )
    parser.add_argument("--json", action="store_true", help="print rows as JSON")


def _compare(arguments: argparse.Namespace) -> int:
    if arguments.circumstances:
        show.table(("circumstance", "what is special"), list(listing()))
        return 0
    for policy in arguments.policy or ():
        make_policy(policy)
    if arguments.trace:
        return _trace(arguments)
    policies = arguments.policy or _DEFAULT_COMPARISON
    if arguments.matrix:
        return _matrix(arguments, policies)
    guests = [find(name) for name in arguments.guest or GUESTS]
    special = [circumstance(name) for name in arguments.circumstance or ["usual"]]
    total = len(guests) * len(policies) * len(special)
    rows = list(show.progress(compare(guests, policies, special), total))
    if arguments.json:
        print(json.dumps({"rows": [row.as_dict() for row in rows]}, indent=2))  # noqa: T201
        return 0
    styles = [report.style(row) for row in rows]
    show.table(report.ROW_HEADS, [report.cells(row) for row in rows], styles)
    show.line("")
    show.line(report.LEGEND)
    return 0


def _trace(arguments: argparse.Namespace) -> int:
    """Print what happens in one run."""
    row = run(
        find(_only("guest", arguments.guest)),
        _only("policy", arguments.policy or [DEFAULT_POLICY]),
        circumstance(_only("circumstance", arguments.circumstance or ["usual"])),
        tell=lambda now, steps, what: show.line(f"{now:8.3f} s {steps:6}  {what}"),
    )
    show.line("")
    show.table(report.ROW_HEADS, [report.cells(row)], [report.style(row)])
    return 0


def _only(option: str, given: Sequence[str] | None) -> str:
    if given is None or len(given) != 1:
        message = f"--trace shows one run: give --{option} once"
        raise HostError(message)
    return given[0]


def _matrix(arguments: argparse.Namespace, policies: Sequence[str]) -> int:
    tasks = [
        (case, policy)
        for policy in policies
        for case in cases(arguments.guest, arguments.circumstance)
    ]
    found = list(show.progress(matrix.rows(tasks, arguments.workers), len(tasks)))
    tallies = tally(found)
    if arguments.json:
        counts = [each.as_dict() for each in tallies]
        rows = [row.as_dict() for row in found]
        print(json.dumps({"policies": counts, "rows": rows}, indent=2))  # noqa: T201
        return 0
    if arguments.markdown:
        text = arguments.markdown.read_text()
        table = report.in_markdown(tallies)
        arguments.markdown.write_text(report.replaced(text, "matrix", table))
    show.table(HEADS, [each.cells() for each in tallies])
    for text in ("", report.MATRIX_LEGEND, "", *report.worst_cases(tallies)):
        show.line(text)
    return 0


# --- boot ---------------------------------------------------------------------------


def _add_boot(commands: Any) -> None:
    boot = commands.add_parser("boot", help="boot a real guest and watch its balloon")
    machines = boot.add_subparsers(metavar="MACHINE", required=True)
    _add_plan(_command(machines, "uml", _boot_uml, "boot User-Mode Linux"))
    qemu = _command(machines, "qemu", _boot_qemu, "boot a kernel of your own in QEMU")
    _add_plan(qemu)
    _add_qemu(qemu)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    """Add what is the same for all machines."""
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
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long the whole may take (default: 60)",
    )


def _add_qemu(parser: argparse.ArgumentParser) -> None:
    """Add what QEMU wants to know; more of it in the documentation of real guests."""
    parser.add_argument(
        "--kernel", type=Path, required=True, metavar="PATH", help="the kernel's image"
    )
    parser.add_argument(
        "--initrd",
        type=Path,
        required=True,
        metavar="PATH",
        help="its initial RAM file system, with an init that obeys our commands",
    )
    parser.add_argument(
        "--qemu",
        metavar="COMMAND",
        help="QEMU 10.1 or later (default: qemu-system-ARCH)",
    )
    parser.add_argument(
        "--arch",
        choices=BOARDS,
        default="aarch64",
        help="the guest's architecture (default: aarch64)",
    )
    parser.add_argument("--machine", help="QEMU's -machine, in place of the usual one")
    parser.add_argument("--cpu", help="QEMU's -cpu, in place of the usual one")
    parser.add_argument(
        "--append",
        default="",
        metavar="TEXT",
        help="more for the kernel's command line",
    )
    parser.add_argument(
        "--transport",
        choices=[transport.value for transport in Transport],
        help="how the guest finds its balloon: virtio-mmio without VERSION_1, with it, "
        "or virtio-pci (default: that of the oldest drivers which the machine has)",
    )
    parser.add_argument(
        "--driver",
        default="virtio_balloon",
        metavar="NAME[:PARAMETER=VALUE,...]",
        help="the module that the guest loads (default: virtio_balloon)",
    )
    _add_facts(parser)


def _boot_uml(arguments: argparse.Namespace) -> int:
    return _boot(find_uml(), arguments)


def _boot_qemu(arguments: argparse.Namespace) -> int:
    options = QemuOptions(
        kernel=arguments.kernel,
        initrd=arguments.initrd,
        arch=arguments.arch,
        command=arguments.qemu,
        machine=arguments.machine,
        cpu=arguments.cpu,
        append=arguments.append,
        transport=_member(Transport, arguments.transport),
        driver=arguments.driver,
        byte_order=_member(ByteOrder, arguments.byte_order),
        page_size=arguments.page_size,
    )
    return _boot(find_qemu(options), arguments)


def _boot(machine: Machine, arguments: argparse.Namespace) -> int:
    plan = Plan(
        policy=arguments.policy,
        target=arguments.target // PAGE_SIZE,
        memory=arguments.mem,
        timeout=arguments.timeout,
    )
    with show.Ticker() as ticker:
        result = boot(machine, plan, lambda step: _tell(ticker, step))
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
    parser.set_defaults(log_level=logging.INFO)
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
    _add_facts(parser)


def _serve(arguments: argparse.Namespace) -> int:
    """Serve until interrupted or terminated."""
    with Daemon() as daemon, contextlib.ExitStack() as stack:
        _end_by_signals(daemon)
        slots = [_add_slot(daemon, path, arguments) for path in arguments.socket]
        if arguments.control:
            for i, slot in enumerate(slots):
                stack.enter_context(_control(daemon, slot, arguments.control, i))
        for slot in slots:
            show.line(
                f"{slot.path}: waiting for a front end (policy {arguments.policy})"
            )
            stack.enter_context(_narrated(slot))
            if arguments.target is not None:
                slot.device.set_target(arguments.target // PAGE_SIZE)
        daemon.run()
    return 0


def _add_slot(daemon: Daemon, path: Path, arguments: argparse.Namespace) -> Slot:
    return daemon.add(
        path,
        functools.partial(make_device, arguments.policy),
        byte_order=_member(ByteOrder, arguments.byte_order),
        page_size=arguments.page_size,
    )


def _end_by_signals(daemon: Daemon) -> None:
    """Let the first signal end the daemon, and none disturb it as it clears up."""
    ending = threading.Event()

    def end(*_: object) -> None:
        if not ending.is_set():
            ending.set()
            daemon.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


class _Narrator:
    """An observer that tells an operator the news of one device."""

    def __init__(self, name: str) -> None:
        self._name = name

    @hookimpl
    def balloon_event(self, event: Event) -> None:
        if narrate.is_news(event):
            show.line(f"{self._name}: {narrate.sentence(event)}")


@contextlib.contextmanager
def _narrated(slot: Slot) -> Iterator[None]:
    """Tell the news of a device, except of how it was made and of its end."""
    narrator = _Narrator(str(slot.path))
    slot.device.plugins.register(narrator)
    try:
        yield
    finally:
        slot.device.plugins.unregister(narrator)


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
