"""``balloon-plugin boot``: a real guest, and what its balloon does."""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import Any

from balloon_plugin import show
from balloon_plugin.boot.guest import Machine
from balloon_plugin.boot.plan import Kind, Plan, Step
from balloon_plugin.boot.qemu import BOARDS, QemuOptions, Transport, find_qemu
from balloon_plugin.boot.story import boot
from balloon_plugin.boot.uml import find_uml
from balloon_plugin.cli.parsing import (
    add_facts,
    add_features,
    add_policy,
    command,
    member,
    seconds,
    size,
)
from balloon_plugin.events import ByteOrder
from balloon_plugin.features import DeviceOptions
from balloon_plugin.layouts import PAGE_SIZE

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command, which has one of its own for each kind of machine."""
    boot = commands.add_parser("boot", help="boot a real guest and watch its balloon")
    machines = boot.add_subparsers(metavar="MACHINE", required=True)
    _add_plan(command(machines, "uml", _boot_uml, "boot User-Mode Linux"))
    qemu = command(machines, "qemu", _boot_qemu, "boot a kernel of your own in QEMU")
    _add_plan(qemu)
    _add_qemu(qemu)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    """Add what is the same for all machines."""
    add_policy(parser)
    add_features(parser)
    parser.add_argument(
        "--target",
        type=size,
        default=128 << 20,
        metavar="SIZE",
        help="the size of the balloon (default: 128M)",
    )
    parser.add_argument(
        "--mem",
        type=size,
        default=512 << 20,
        metavar="SIZE",
        help="the guest's RAM (default: 512M)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long the whole may take (default: 60)",
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write all that happens to the device to a trace, for 'replay'; .zst at "
        "the end compresses it",
    )


def _add_qemu(parser: argparse.ArgumentParser) -> None:
    """Add what QEMU wants to know; more of it in the documentation of real guests."""
    parser.add_argument(
        "--kernel", type=Path, required=True, metavar="PATH", help="the kernel's image"
    )
    parser.add_argument(
        "--initrd",
        type=Path,
        metavar="PATH",
        help="its initial RAM file system, with an init that obeys our commands "
        "(default: made of busybox and the kernel's modules)",
    )
    parser.add_argument(
        "--modules",
        type=Path,
        metavar="PATH",
        help="the folder of its modules (default: /lib/modules/VERSION for a kernel "
        "called vmlinuz-VERSION)",
    )
    parser.add_argument(
        "--qemu",
        metavar="COMMAND",
        help="QEMU 10.1 or later (default: qemu-system-ARCH)",
    )
    parser.add_argument(
        "--arch",
        choices=BOARDS,
        default=platform.machine(),
        help=f"the guest's architecture (default: {platform.machine()})",
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
    add_facts(parser)


def _boot_uml(arguments: argparse.Namespace) -> int:
    return _boot(find_uml(), arguments)


def _boot_qemu(arguments: argparse.Namespace) -> int:
    options = QemuOptions(
        kernel=arguments.kernel,
        initrd=arguments.initrd,
        modules=arguments.modules,
        arch=arguments.arch,
        command=arguments.qemu,
        machine=arguments.machine,
        cpu=arguments.cpu,
        append=arguments.append,
        transport=member(Transport, arguments.transport),
        driver=arguments.driver,
        byte_order=member(ByteOrder, arguments.byte_order),
        page_size=arguments.page_size,
    )
    return _boot(find_qemu(options), arguments)


def _boot(machine: Machine, arguments: argparse.Namespace) -> int:
    plan = Plan(
        policy=arguments.policy,
        target=arguments.target // PAGE_SIZE,
        memory=arguments.mem,
        timeout=arguments.timeout,
        options=DeviceOptions().changed(arguments.feature),
        record=arguments.record,
    )
    with show.Ticker() as ticker:
        result = boot(machine, plan, lambda step: _tell(ticker, step))
    return result.ending.exit_code


_KIND_STYLES = {Kind.POLICY: "cyan", Kind.BALLOON: "green", Kind.PROBLEM: "red"}


def _tell(ticker: show.Ticker, step: Step) -> None:
    when = f"{step.at:7.3f} s  {step.kind.value:8}"
    text = f"{when}{step.text}"
    if step.kind is Kind.WAITING:
        ticker.wait(text)
    else:
        ticker.line(text, _KIND_STYLES.get(step.kind, ""), len(when))
