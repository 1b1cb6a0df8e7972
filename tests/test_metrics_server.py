"""Metrics over HTTP: for those who ask, in bounds for those who do not."""

from __future__ import annotations

import socket
import urllib.request
from contextlib import closing

import pytest
from command_line import until
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from balloon_plugin import metrics_server
from balloon_plugin.errors import HostError
from balloon_plugin.metrics_server import MetricsServer

LOCAL = ("127.0.0.1", 0)


class Metrics(Collector):
    def collect(self):
        yield GaugeMetricFamily("balloon_guests", "How many.", value=7)


def scrape(server):
    url = f"http://127.0.0.1:{server.port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), 10)


def test_a_scrape_is_answered_until_the_end():
    with MetricsServer(Metrics(), LOCAL) as server:
        text = scrape(server)

    assert "\nballoon_guests 7.0\n" in text
    with pytest.raises(OSError, match="refused"):
        scrape(server)


def test_a_port_that_is_taken_is_a_sentence():
    with (
        MetricsServer(Metrics(), LOCAL) as server,
        pytest.raises(HostError, match=r"cannot be served on .* choose another port$"),
    ):
        MetricsServer(Metrics(), ("127.0.0.1", server.port))


def test_a_client_that_asks_nothing_is_cut_off(monkeypatch, capfd):
    assert metrics_server._Handler.timeout == metrics_server._PATIENCE
    monkeypatch.setattr(metrics_server._Handler, "timeout", 0.05)
    with MetricsServer(Metrics(), LOCAL) as server, closing(connect(server)) as silent:
        assert silent.recv(1) == b""

    assert capfd.readouterr() == ("", "")


def test_of_too_many_clients_the_last_are_cut_off(monkeypatch):
    monkeypatch.setattr(metrics_server, "_MOST", 1)
    with MetricsServer(Metrics(), LOCAL) as server:
        with closing(connect(server)) as first:
            with closing(connect(server)) as second:
                assert second.recv(1) == b""
            first.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert first.recv(8) == b"HTTP/1.0"
            while first.recv(4096):
                pass

        until(lambda: server._server._room._value == 1)
        assert "balloon_guests 7.0" in scrape(server)
