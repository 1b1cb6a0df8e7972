"""Serves Prometheus metrics over HTTP, a thread for each scrape.

Anybody may connect who reaches the port. So there are bounds: whoever holds connections
open must not take the descriptors that front ends need, nor memory without end.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from socketserver import ThreadingMixIn
from typing import Any, Final, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.registry import Collector

from balloon_plugin.errors import HostError

__all__ = ["MetricsServer"]

_MOST: Final = 32
"""Connections at a time; the next ones are closed. Scrapers need one each."""

_PATIENCE: Final = 10.0
"""Seconds in which a request has to come: Prometheus gives a scrape no more."""


class _Handler(WSGIRequestHandler):
    """One connection: a request, the metrics, and good-bye."""

    timeout = _PATIENCE

    def log_message(self, *_: object) -> None:
        """Log nothing: scrapes come all the time."""

    def handle(self) -> None:
        """Answer, if the client is there and asks for something in time."""
        with contextlib.suppress(OSError):
            super().handle()


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each of so many connections."""

    daemon_threads = True

    def __init__(self, address: Any, family: socket.AddressFamily) -> None:
        self.address_family = family
        self._room = threading.BoundedSemaphore(_MOST)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin to answer a connection, or close it if there are too many."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection, and make room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()


class MetricsServer:
    """Serves metrics over HTTP; a context manager.

    :param metrics: what to serve.
    :param address: where to listen, and the port; 0 stands for any that is free.
    :raises HostError: if nobody can listen there.

    :ivar port: the port.
    """

    def __init__(self, metrics: Collector, address: tuple[str, int]) -> None:
        registry = CollectorRegistry()
        registry.register(metrics)
        host, port = address
        try:
            family, *_, where = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._server = _Server(where, family)
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise HostError(
                f"metrics cannot be served on {host}:{port}: {why}; choose another port"
            ) from error
        self._server.set_app(make_wsgi_app(registry))
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the server; nobody is answered any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
