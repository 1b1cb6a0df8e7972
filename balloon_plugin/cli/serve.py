"""``balloon-plugin serve``: the vhost-user daemon."""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from balloon_plugin import control, show
from balloon_plugin.calls import Device
from balloon_plugin.cli.companions import Companions, add_companions
from balloon_plugin.cli.narrator import narrated, tell
from balloon_plugin.cli.parsing import (
    add_facts,
    add_features,
    command,
    member,
    size,
)
from balloon_plugin.cli.process import allow_descriptors, end_by_signals
from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder
from balloon_plugin.features import DeviceOptions
from balloon_plugin.hosts.state_file import StateError
from balloon_plugin.hosts.vhost_user.daemon import Daemon, Slot
from balloon_plugin.layouts import PAGE_SIZE

__all__ = ["add"]

_log = logging.getLogger(__name__)

USUAL_OPTIONS: Final = DeviceOptions(must_tell_host=True)
"""What is offered if the user says nothing.

A front end asks for features before it shares memory, which may be on huge pages. These
are given back only if the driver tells before it uses a page again: too late to ask.
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "serve", _serve, "serve vhost-user front ends")
    parser.set_defaults(log_level=logging.INFO)
    parser.add_argument(
        "--socket",
        type=_named_socket,
        action="append",
        required=True,
        metavar="[NAME=]PATH",
        help="a socket to make and listen on; give several for several guests, which "
        "are called by their NAME (default: that of the file, without its suffix)",
    )
    add_companions(parser)
    add_features(parser)
    parser.add_argument(
        "--target",
        type=size,
        metavar="SIZE",
        help="the size of the balloon to begin with (512K, 128M, 2G)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FOLDER",
        help="keep each guest's session in a file there, so that it goes on after the "
        "daemon was killed and started again",
    )
    parser.add_argument(
        "--control",
        type=Path,
        metavar="PATH",
        help="a QMP socket to make, through which all guests are controlled",
    )
    parser.add_argument(
        "--metrics",
        type=_address,
        metavar="[ADDRESS:]PORT",
        help="serve Prometheus metrics there over HTTP (default address: 127.0.0.1)",
    )
    add_facts(parser)


def _serve(arguments: argparse.Namespace) -> int:
    """Serve until interrupted or terminated."""
    with Daemon() as daemon, contextlib.ExitStack() as stack:
        end_by_signals(daemon.stop)
        allow_descriptors()
        companions = Companions(arguments, stack)
        try:
            slots = _begin(daemon, companions, arguments, stack)
        except BaseException:
            companions.forget(*(name for name, _ in arguments.socket))
            raise
        daemon.run()
    return 0 if len(slots) == len(arguments.socket) else 1


def _begin(
    daemon: Daemon,
    companions: Companions,
    arguments: argparse.Namespace,
    stack: contextlib.ExitStack,
) -> dict[str, Slot]:
    """Make all that is served, and say so; return the slot of each guest."""
    slots = _add_slots(daemon, companions, arguments)
    guests = {name: slot.device for name, slot in slots.items()}
    if arguments.control:
        server = control.ControlServer(
            arguments.control, guests, daemon.call, companions.about
        )
        stack.enter_context(server)
    if arguments.metrics:
        stack.enter_context(_metrics_server(arguments.metrics, guests))
    for name, slot in slots.items():
        policy = companions.policy_of(name)
        how = f"policy {policy}{', as it was' * slot.restored}"
        tell(name, f"waiting for a front end on {slot.path} ({how})")
        stack.enter_context(narrated(name, slot.device))
        if arguments.target is not None and not slot.restored:
            pages = arguments.target // PAGE_SIZE
            # A client of the control socket may be there already.
            daemon.call(functools.partial(slot.device.set_target, pages))
    return slots


def _add_slots(
    daemon: Daemon, companions: Companions, arguments: argparse.Namespace
) -> dict[str, Slot]:
    """Return the slot of each guest; no guest has to wait for another's damage."""
    slots: dict[str, Slot] = {}
    damage = []
    options = USUAL_OPTIONS.changed(arguments.feature)
    for name, path in arguments.socket:
        if name in slots:
            raise HostError(
                f"two guests are called {name}: give one another name, "
                f"--socket NAME={path}"
            )
        try:
            make = functools.partial(companions.make, name, options)
            slots[name] = _add_slot(daemon, (name, path), make, arguments)
        except StateError as error:
            companions.forget(name)
            damage.append(f"{name}: not served: {error}")
    if damage and not slots:
        raise HostError("; ".join(damage))
    for sentence in damage:
        _log.warning("%s", sentence)
    return slots


def _named_socket(text: str) -> tuple[str, Path]:
    """Return the name of a guest and the path of its socket."""
    if match := re.fullmatch(r"([\w.-]+)=(.+)", text):
        return match[1], Path(match[2])
    return Path(text).stem, Path(text)


def _address(text: str) -> tuple[str, int]:
    """Return where to listen, and the port; of an IPv6 address without brackets."""
    host, colon, port = text.rpartition(":")
    if not (port.isdecimal() and int(port) < 1 << 16):
        message = f"{text!r} is no port: write 9100, or 0.0.0.0:9100"
        raise argparse.ArgumentTypeError(message)
    return host.strip("[]") if colon else "127.0.0.1", int(port)


def _metrics_server(
    address: tuple[str, int], guests: dict[str, Device]
) -> contextlib.AbstractContextManager[object]:
    try:
        from balloon_plugin.metrics import Metrics, MetricsServer  # noqa: PLC0415
    except ImportError as error:
        raise HostError(
            "metrics need prometheus_client: pip install 'balloon-plugin[metrics]'"
        ) from error
    metrics = Metrics()
    for name, device in guests.items():
        metrics.watch(name, device)
    server = MetricsServer(metrics, address)
    show.line(f"metrics on http://{address[0]}:{server.port}/metrics")
    return server


def _add_slot(
    daemon: Daemon,
    guest: tuple[str, Path],
    make: Callable[[], Device],
    arguments: argparse.Namespace,
) -> Slot:
    (name, path), state = guest, arguments.state
    return daemon.add(
        path,
        make,
        byte_order=member(ByteOrder, arguments.byte_order),
        page_size=arguments.page_size,
        state=state / f"{name}.state" if state else None,
    )
