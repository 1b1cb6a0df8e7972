"""Prometheus metrics of the guests of one process: an observer of each device.

An observer sees the events of its device and can change nothing. This one counts them,
and with the tick of every second it keeps what a query shows. A scrape reads what is
kept, in a thread of its own, so that it never waits for a device and no device for it.

The labels are the guest's name and words from fixed lists, never what a guest sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from balloon_plugin.calls import Device
from balloon_plugin.control.statistics import NOT_SENT, guest_stats
from balloon_plugin.events import Event, GuestFault, Judgement, TimePassed
from balloon_plugin.hookspecs import hookimpl
from balloon_plugin.layouts import PAGE_SIZE
from balloon_plugin.metrics_server import MetricsServer
from balloon_plugin.status import Status

__all__ = ["Metrics", "MetricsServer"]

_GAUGES: Final[tuple[tuple[str, str, Callable[[Status], float]], ...]] = (
    ("ram_bytes", "The guest's RAM.", lambda status: status.ram * PAGE_SIZE),
    (
        "target_bytes",
        "The balloon that the user asked for.",
        lambda status: status.requested * PAGE_SIZE,
    ),
    (
        "advertised_bytes",
        "The balloon that the driver is shown as its target.",
        lambda status: status.advertised * PAGE_SIZE,
    ),
    (
        "actual_bytes",
        "The balloon by the driver's word, pages of a probe included.",
        lambda status: status.actual * PAGE_SIZE,
    ),
    (
        "reclaimed_bytes",
        "Memory in the balloon that was given back to the host.",
        lambda status: status.reclaimed * PAGE_SIZE,
    ),
    ("driver", "Whether a driver has shown itself.", lambda status: status.driver),
    (
        "inhibited",
        "Whether giving memory back is forbidden.",
        lambda status: status.inhibited is not None,
    ),
)


class _Watched:
    """The observer of one device, and what it keeps.

    :ivar counts: how often each kind of event came.
    :ivar status: what a query showed a second ago at most, ``None`` at first.
    :ivar updated: when that was, in seconds since 1970.
    """

    def __init__(self, query: Callable[[], Status]) -> None:
        self._query = query
        self.counts = {kind.__name__: 0 for kind in get_args(Event)}
        self.status: Status | None = None
        self.updated = 0.0

    @hookimpl
    def balloon_event(self, event: Event) -> None:
        """Count an event, and once a second look at everything else."""
        self.counts[type(event).__name__] += 1
        if isinstance(event, TimePassed):
            self.status, self.updated = self._query(), time.time()


class Metrics(Collector):
    """The metrics of some devices, for a registry of ``prometheus_client``."""

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}

    def watch(self, guest: str, device: Device) -> None:
        """Observe a device from now on; call it where the device lives.

        :param guest: the value of the label ``guest``.
        """
        watched = self._watched[guest] = _Watched(device.query)
        device.plugins.register(watched)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as they were kept last; called for each scrape."""
        watched = dict(self._watched)
        yield from _counters(watched)
        shown = {
            guest: (status, each.updated)
            for guest, each in watched.items()
            if (status := each.status) is not None
        }
        for name, text, value in _GAUGES:
            gauge = GaugeMetricFamily(f"balloon_{name}", text, labels=["guest"])
            for guest, (status, _) in shown.items():
                gauge.add_metric([guest], value(status))
            yield gauge
        yield from _about_verdicts(shown)
        yield from _about_statistics(shown)


_Shown = dict[str, tuple[Status, float]]


def _counters(watched: dict[str, _Watched]) -> Iterator[Metric]:
    events = CounterMetricFamily(
        "balloon_events", "Events by kind.", labels=["guest", "kind"]
    )
    faults = CounterMetricFamily(
        "balloon_faults", "How often drivers broke the specification.", labels=["guest"]
    )
    for guest, each in watched.items():
        for kind, count in each.counts.items():
            events.add_metric([guest, kind], count)
        faults.add_metric([guest], each.counts[GuestFault.__name__])
    yield events
    yield faults


def _about_verdicts(shown: _Shown) -> Iterator[Metric]:
    verdict = GaugeMetricFamily(
        "balloon_verdict",
        "1 for what is concluded of the driver, 0 for the rest.",
        labels=["guest", "judgement"],
    )
    for guest, (status, _) in shown.items():
        for judgement in Judgement:
            holds = judgement is status.verdict.judgement
            verdict.add_metric([guest, judgement.value], holds)
    yield verdict


def _about_statistics(shown: _Shown) -> Iterator[Metric]:
    """Yield statistics, without those that were not sent, and when they came."""
    values = GaugeMetricFamily(
        "balloon_statistic",
        "Memory statistics that the driver sent last; see the time of that.",
        labels=["guest", "statistic"],
    )
    came = GaugeMetricFamily(
        "balloon_statistics_timestamp_seconds",
        "When statistics last came, 0 if they never did.",
        labels=["guest"],
    )
    updated = GaugeMetricFamily(
        "balloon_updated_timestamp_seconds",
        "When the gauges of this guest were taken.",
        labels=["guest"],
    )
    for guest, (status, at) in shown.items():
        found = guest_stats(status, at)
        for name, value in found["stats"].items():
            if value != NOT_SENT:
                values.add_metric([guest, name.removeprefix("stat-")], value)
        came.add_metric([guest], found["last-update"])
        updated.add_metric([guest], at)
    yield from (values, came, updated)
