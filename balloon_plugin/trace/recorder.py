"""The recorder: an observer that writes down all that happens to one device."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from balloon_plugin import __version__
from balloon_plugin.calls import Device, PolicyCalls
from balloon_plugin.errors import HostError
from balloon_plugin.events import DeviceReset, Event, Judgement, Verdict, VerdictChanged
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.trace.files import Sink, create
from balloon_plugin.trace.lines import Concluded, Entry, Header, Moment, encode

__all__ = ["Recorder", "check_new", "recording"]

_MICRO: Final = 1_000_000


class Recorder:
    """Writes the trace of one device; made by :func:`recording`.

    :param device: not realized yet, since a trace begins with its guest.
    :param sink: where lines go.
    :param clock: seconds from any start.
    :param about: the fields of the header that the device does not know.

    :ivar path: the file.
    """

    def __init__(
        self,
        device: Device,
        path: Path,
        sink: Sink,
        clock: Callable[[], float],
        about: dict[str, str],
    ) -> None:
        self.path = path
        self._device = device
        self._sink = sink
        self._clock = clock
        self._about = about
        self._start: float | None = None
        self._told = Verdict(Judgement.UNDECIDED, "")

    @hookimpl
    def balloon_event(self, event: Event) -> None:
        """Write an event, and before a reset what it makes forgotten."""
        if self._start is None:
            self._start = self._clock()
            self._sink.write(encode(self._header()))
        if isinstance(event, DeviceReset):
            verdict = self._device.query().verdict
            if verdict != self._told:
                self._write(Concluded(verdict))
        elif isinstance(event, VerdictChanged):
            self._told = event.verdict
        self._write(event)

    def close(self) -> None:
        """Write what the policy has concluded by now, and close the file."""
        # A disk that is full has been told of: this observer was cut off.
        with contextlib.suppress(OSError), contextlib.closing(self._sink):
            if self._start is not None:
                self._write(Concluded(self._verdict()))

    def _verdict(self) -> Verdict:
        if _is_realized(self._device):
            return self._device.query().verdict
        return self._told

    def _header(self) -> Header:
        return Header(
            package=__version__,
            policy=self._device.query().policy,
            offers=PolicyCalls(self._device.plugins, "").features(),
            **self._about,
        )

    def _write(self, entry: Entry) -> None:
        assert self._start is not None  # noqa: S101 - the header is written
        at = round((self._clock() - self._start) * _MICRO)
        self._sink.write(encode(Moment(at, entry)))


@contextlib.contextmanager
def recording(
    device: Device,
    path: str | Path,
    *,
    clock: Callable[[], float] = time.monotonic,
    guest: str = "",
    split: str = "",
    salt: str = "",
) -> Iterator[Recorder]:
    """Record all that happens to a device, until the context is left.

    Enter it before the host realizes the device: a trace begins with what the host
    knows of its guest. A recorder that cannot write any more is cut off, as every
    observer that raises; the guest does not notice.

    :param device: as from :func:`balloon_plugin.make_device`.
    :param path: of the trace; with ``.zst`` at its end it is compressed. If there is
        such a file, a number goes before its suffix.
    :param clock: seconds from any start; a simulated host's own, for a simulated guest.
    :param guest: what to call the guest in the trace.
    :param split: how its policy was chosen.
    :param salt: what else went into that choice.
    :raises HostError: if the device is realized already, or the file cannot be made.
    """
    check_new(device)
    own, sink = create(Path(path))
    about = {"guest": guest, "split": split, "salt": salt, "started": _wall_clock()}
    recorder = Recorder(device, own, sink, clock, about)
    device.plugins.register(recorder)
    try:
        yield recorder
    finally:
        device.plugins.unregister(recorder)
        recorder.close()


def check_new(device: Device) -> None:
    """See that a device can be followed from its beginning.

    :raises HostError: if it has been realized already.
    """
    if _is_realized(device):
        raise HostError(
            "the device is realized already, and what a host knows of its guest comes "
            "first: record or watch it before a host has it"
        )


def _is_realized(device: Device) -> bool:
    try:
        device.query()
    except HostError:
        return False
    return True


def _wall_clock() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
