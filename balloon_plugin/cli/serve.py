"""``balloon-plugin serve``: the vhost-user daemon."""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from balloon_plugin import control, narrate, show
from balloon_plugin.cli.parsing import add_facts, add_policy, command, member, size
from balloon_plugin.events import ByteOrder, Event
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.hosts.vhost_user.daemon import Daemon, Slot
from balloon_plugin.layouts import PAGE_SIZE
from balloon_plugin.manager import make_device

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "serve", _serve, "serve vhost-user front ends")
    parser.set_defaults(log_level=logging.INFO)
    parser.add_argument(
        "--socket",
        type=Path,
        action="append",
        required=True,
        metavar="PATH",
        help="a socket to make and listen on; give several for several guests",
    )
    add_policy(parser)
    parser.add_argument(
        "--target",
        type=size,
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
    add_facts(parser)


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
        byte_order=member(ByteOrder, arguments.byte_order),
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
