"""Prometheus metrics: a scrape tells the truth, and costs no guest anything."""

from __future__ import annotations

import struct

import pytest
from fakes import STATS_VQ, ScriptedPolicy, follow, opened, rig
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from balloon_plugin.events import Judgement, PluginFailed, Verdict
from balloon_plugin.metrics import Metrics

VERSION_1 = 1 << 32


@pytest.fixture
def metrics():
    return Metrics()


def scraped(metrics):
    """Return the samples of a scrape: a value for each name and label's values."""
    registry = CollectorRegistry()
    registry.register(metrics)
    text = generate_latest(registry).decode()
    return {
        (sample.name.removeprefix("balloon_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def in_use(metrics):
    """Return a device with three pages in its balloon, which has ticked."""
    made = rig(ScriptedPolicy(follow))
    metrics.watch("vm1", made.device)
    made.device.set_target(5)
    made.inflate(1, 2, 3)
    made.write_actual(3)
    made.device.tick()
    return made


# --- what is told -------------------------------------------------------------------


def test_the_balloon_is_told_in_bytes(metrics):
    in_use(metrics)

    samples = scraped(metrics)

    assert samples["ram_bytes", "vm1"] == 16 << 20
    assert samples["target_bytes", "vm1"] == 5 * 4096
    assert samples["advertised_bytes", "vm1"] == 5 * 4096
    assert samples["actual_bytes", "vm1"] == 3 * 4096
    assert samples["reclaimed_bytes", "vm1"] == 3 * 4096
    assert samples["driver", "vm1"] == 1
    assert samples["inhibited", "vm1"] == 0


def test_one_judgement_holds(metrics):
    made = in_use(metrics)
    made.policy.verdict = Verdict(Judgement.BUGGY, "SCRIPTED")
    made.device.tick()
    made.device.tick()

    samples = scraped(metrics)

    assert [samples["verdict", "vm1", each.value] for each in Judgement] == [0, 0, 1]


def test_events_and_faults_are_counted(metrics):
    made = in_use(metrics)
    made.device.set_features(1 << 20)

    samples = scraped(metrics)

    assert samples["events_total", "vm1", "PagesInflated"] == 1
    assert samples["events_total", "vm1", "TargetRead"] == 0
    assert samples["faults_total", "vm1"] == 1


def test_statistics_have_the_time_when_they_came(metrics):
    made = opened()
    metrics.watch("vm1", made.device)
    made.device.set_features(VERSION_1 | STATS_VQ)
    made.device.driver_ready()
    sent = struct.pack("<HQHQ", 4, 1 << 20, 4711, 5)
    made.host.queues[2].offer_bytes(sent)
    made.device.queue_notify(2)
    made.host.clock += 60
    made.device.tick()

    samples = scraped(metrics)

    told = {labels[1:]: value for labels, value in samples.items()
            if labels[0] == "statistic"}  # fmt: skip
    assert told == {("vm1", "free-memory"): 1 << 20}
    updated = samples["updated_timestamp_seconds", "vm1"]
    came = samples["statistics_timestamp_seconds", "vm1"]
    assert 60 <= updated - came < 61


def test_statistics_of_another_driver_are_not_told(metrics):
    made = opened()
    metrics.watch("vm1", made.device)
    made.device.tick()

    samples = scraped(metrics)

    assert samples["statistics_timestamp_seconds", "vm1"] == 0
    assert not [labels for labels in samples if labels[0] == "statistic"]


def test_before_the_first_tick_there_are_counters_alone(metrics):
    metrics.watch("vm1", rig().device)

    names = {labels[0] for labels in scraped(metrics)}

    assert names == {"events_total", "faults_total"}


def test_guests_are_told_apart(metrics):
    in_use(metrics)
    other = rig(ScriptedPolicy(follow))
    metrics.watch("vm2", other.device)
    other.device.tick()

    samples = scraped(metrics)

    assert samples["actual_bytes", "vm1"] == 3 * 4096
    assert samples["actual_bytes", "vm2"] == 0


def test_whatever_a_guest_does_there_are_no_more_series(metrics):
    made = in_use(metrics)
    before = scraped(metrics).keys()

    for features in range(20):
        made.device.set_features(1 << features)
        made.inflate(2**32 - 1 - features)
    made.device.reset()
    made.device.tick()

    assert scraped(metrics).keys() == before


# --- what it costs ------------------------------------------------------------------


def test_metrics_that_fail_cost_the_guest_nothing(metrics, monkeypatch):
    made = in_use(metrics)
    monkeypatch.setattr(made.device, "query", lambda: 1 / 0)
    metrics.watch("broken", made.device)

    made.device.tick()
    head = made.inflate(4)

    (failed,) = made.recorder.of(PluginFailed)
    assert (failed.hook, failed.error[:17]) == ("balloon_event", "ZeroDivisionError")
    assert made.inflateq.returned[-1] == head
    assert scraped(metrics)["events_total", "vm1", "PagesInflated"] == 2
    assert scraped(metrics)["events_total", "broken", "PagesInflated"] == 0
