"""What a recorder and a shadow cost the thread of a device, for one buffer of 256."""

from __future__ import annotations

import pytest

from balloon_plugin import make_device
from balloon_plugin.events import PagesInflated
from balloon_plugin.hosts.simulated import SimulatedHost
from balloon_plugin.trace import recording
from balloon_plugin.watch import watching

RUN = tuple(range(4096, 4352))
LARGE_PAGES = tuple(
    page + piece for page in range(8192, 4096, -256) for piece in range(16)
)
SCATTERED = tuple(number * 7919 % 65536 for number in range(256))
BUFFERS = {"in a row": RUN, "pages of 64 KiB": LARGE_PAGES, "scattered": SCATTERED}

WAYS = {
    "nobody": lambda _device, _folder: None,
    "recorder": lambda device, folder: recording(device, folder / "x.jsonl"),
    "recorder, zstd": lambda device, folder: recording(device, folder / "x.jsonl.zst"),
    "shadow": lambda device, _folder: watching(device, "none"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pattern", BUFFERS)
def test_one_event(benchmark, tmp_path, way, pattern, book):
    benchmark.group = f"a buffer of 256 pages, {pattern}, is told to"
    device = make_device("none")
    companion = WAYS[way](device, tmp_path)
    event = PagesInflated(BUFFERS[pattern])
    if companion is not None:
        companion.__enter__()
    host = SimulatedHost(device)

    benchmark.pedantic(device.observers.emit, (event,), iterations=20, rounds=100)

    least = f"{min(benchmark.stats.stats.data) * 1e6:,.1f}"
    head = ("told to", "buffer", "us")
    book.row("One event of 256 page numbers", head, way, pattern, least)
    host.close()
    if companion is not None:
        companion.__exit__(None, None, None)
