"""The page on metrics: its scrape is real, its alerts ask for what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from balloon_plugin import make_device
from balloon_plugin.guests import Guest, find
from balloon_plugin.hosts.simulated import SimulatedHost
from balloon_plugin.metrics import Metrics

PAGE = (Path(__file__).parents[1] / "docs/metrics.md").read_text()


def block(language):
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return found[1]


@pytest.fixture(scope="module")
def scrape():
    """A guest of 64 MiB, of which the user wants 16 MiB and statistics."""
    device = make_device("probe")
    metrics = Metrics()
    metrics.watch("vm1", device)
    host = SimulatedHost(device)
    guest = Guest(find("linux-6.12-le-4k"), host)
    guest.run()
    device.set_target(4096)
    device.set_stats_interval(1)
    guest.run()
    device.tick()
    host.close()
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry).decode()


def test_the_scrape_is_real(scrape):
    shown = block("text").splitlines()

    assert {line for line in shown if "timestamp" not in line} <= {*scrape.splitlines()}


def test_every_metric_is_told_of(scrape):
    there = set(re.findall(r"^# TYPE (\w+)", scrape, re.MULTILINE))

    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == there


def test_alerts_ask_for_what_there_is(scrape):
    asked = set(re.findall(r"\bballoon_\w+", block("yaml")))

    assert asked
    assert all(f"\n{name}{{" in scrape for name in asked)


def test_the_example_runs(capsys):
    exec(compile(block("python"), "metrics.md", "exec"), {})  # noqa: S102 - our own

    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics\n", capsys.readouterr().out)
