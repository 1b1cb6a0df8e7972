"""What ``serve`` puts beside each device: a recorder, shadows, and a policy by lot."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from balloon_plugin.calls import Device
from balloon_plugin.cli.parsing import add_policy
from balloon_plugin.errors import HostError
from balloon_plugin.features import DeviceOptions
from balloon_plugin.manager import make_device, make_policy
from balloon_plugin.split import Split
from balloon_plugin.trace import recording
from balloon_plugin.watch import Watch, watching

__all__ = ["Companions", "add_companions"]


def add_companions(parser: argparse.ArgumentParser) -> None:
    """Add the policy, or how to choose it, and who looks on."""
    which = parser.add_mutually_exclusive_group()
    add_policy(which)
    which.add_argument(
        "--policy-split",
        metavar="POLICY=SHARE,...",
        help="choose each guest's policy by its NAME, in these proportions and for "
        "good (evidence=90,probe=10)",
    )
    parser.add_argument(
        "--salt",
        default="",
        metavar="TEXT",
        help="with --policy-split: another text divides the guests anew",
    )
    parser.add_argument(
        "--shadow",
        action="append",
        default=[],
        metavar="NAME[:OPTION=VALUE,...]",
        help="a policy that looks on without power, in a process of its own "
        "(repeatable)",
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write all that happens to a device to a trace, for 'replay'; .zst at "
        "the end compresses it; with several guests each has its NAME before the "
        "suffix",
    )


class Companions:
    """The companions of all devices of one daemon.

    :param arguments: as :func:`add_companions` has them.
    :param stack: ends what has to be ended.
    :raises PluginError: if a policy cannot be made.
    :raises HostError: if a guest of several policies has no name of its own.
    """

    def __init__(
        self, arguments: argparse.Namespace, stack: contextlib.ExitStack
    ) -> None:
        self._arguments = arguments
        self._stack = stack
        self._split: Split | None = None
        self._watches: dict[str, Watch] = {}
        self._traces: dict[str, Path] = {}
        if arguments.policy_split is not None:
            self._split = Split.parse(arguments.policy_split, arguments.salt)
            for policy, _ in self._split.shares:
                make_policy(policy)
            _check_names(arguments.socket)

    def policy_of(self, guest: str) -> str:
        """Return the policy of a guest, with its options."""
        if self._split is not None:
            return self._split.choose(guest)
        policy: str = self._arguments.policy
        return policy

    def make(self, guest: str, options: DeviceOptions) -> Device:
        """Make the device of a guest, with all that goes with it."""
        arguments = self._arguments
        device = make_device(self.policy_of(guest), options=options)
        if arguments.record is not None:
            path = self._trace_of(guest)
            split = {"split": str(self._split), "salt": arguments.salt}
            about = split if self._split else {}
            trace = recording(device, path, guest=guest, **about)
            self._traces[guest] = self._stack.enter_context(trace).path
        if arguments.shadow:
            watch = watching(device, *arguments.shadow)
            self._watches[guest] = self._stack.enter_context(watch)
        return device

    def forget(self, *guests: str) -> None:
        """Take away the traces of guests that come to nothing, if there are any."""
        for guest in guests:
            if guest in self._traces:
                self._traces[guest].unlink(missing_ok=True)

    def about(self, guest: str) -> dict[str, Any]:
        """Return what a query of a guest is to show besides its device."""
        shown: dict[str, Any] = {}
        if self._split is not None:
            shown["split"] = asdict(self._split) | {"shares": str(self._split)}
        if guest in self._watches:
            shadows = self._watches[guest].status()
            shown["shadows"] = [shadow.as_dict() for shadow in shadows]
        return shown

    def _trace_of(self, guest: str) -> Path:
        path: Path = self._arguments.record
        if len(self._arguments.socket) == 1:
            return path
        stem, dot, suffix = path.name.partition(".")
        return path.with_name(f"{stem}.{guest}{dot}{suffix}")


def _check_names(sockets: list[tuple[str, Path]]) -> None:
    """Refuse a lot by a name that every guest of the fleet may have."""
    for name, path in sockets:
        if name == path.stem:
            raise HostError(
                f"--policy-split chooses by the guest's name, and {name} is merely "
                f"that of its socket: give it one of its own, --socket NAME={path}"
            )
