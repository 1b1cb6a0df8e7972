"""QEMU's own virtio-balloon and ours behind the same QEMU, in turns.

Both are driven by the same driver, by way of virtio-mmio, on a shared memfd; ours is
the daemon, in a process of its own. Needs QEMU 11 in BALLOON_QEMU.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import textwrap

import patterns
import pytest
from contest import Samples
from machine import BATCH, PAGE
from qemu import RAM_START, Qemu

BUFFERS = 128
TURNS = 8
RAM = 1280 << 20
PATTERNS = {
    "contiguous": patterns.contiguous,
    "shuffled": patterns.shuffled_together,
    "every second": patterns.every_second,
    "scattered": patterns.scattered,
}
TITLES = {
    1: "Kicks with one buffer of 256 pages, behind QEMU",
    128: "One kick with 128 buffers of 256 pages, behind QEMU",
}
HEAD = "pages", "QEMU's own, ns/page", "ours, ns/page", "ours : QEMU's own"

SERVE = """
    import sys
    from balloon_plugin import make_device
    from balloon_plugin.hosts.vhost_user.daemon import Daemon

    with Daemon() as daemon:
        daemon.add(sys.argv[1], lambda: make_device("none"))
        print("ready", flush=True)
        daemon.run()
"""


@pytest.fixture(scope="module")
def command():
    words = shlex.split(os.environ.get("BALLOON_QEMU", ""))
    if not words:
        pytest.skip("set BALLOON_QEMU to the command of a qemu-system-aarch64 11")
    return words


@pytest.fixture(scope="module")
def theirs(command):
    qemu = Qemu(command, RAM, "virtio-balloon-device")
    yield qemu, ()
    qemu.close()


@pytest.fixture(scope="module")
def ours(command, tmp_path_factory):
    path = tmp_path_factory.mktemp("vhost") / "socket"
    program = textwrap.dedent(SERVE)
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE
    ) as daemon:
        assert daemon.stdout.readline() == b"ready\n"
        device = "vhost-user-test-device,chardev=balloon,virtio-id=5"
        queues = ",num_vqs=2,vq_size=128,config_size=16"
        chardev = "-chardev", f"socket,id=balloon,path={path}"
        qemu = Qemu(command, RAM, device + queues, *chardev)
        yield qemu, (daemon.pid,)
        qemu.close()
        daemon.terminate()


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("at_once", TITLES)
def test_kicks(theirs, ours, at_once, pattern, book):
    """Fill and empty both balloons, again and again; the first turn does not count."""
    first = RAM_START // PAGE
    batches = [[first + n for n in batch] for batch in PATTERNS[pattern](BUFFERS)]

    turns = [
        (_fill(*theirs, batches, at_once), _fill(*ours, batches, at_once))
        for _ in range(TURNS)
    ]

    qemu, own = map(Samples, zip(*turns[1:], strict=True))
    each = [f"{one.usual / BUFFERS / BATCH * 1e9:,.0f}" for one in (qemu, own)]
    book.row(TITLES[at_once], HEAD, pattern, *each, f"**{own.usual / qemu.usual:.2f}**")


def _fill(qemu, others, batches, at_once):
    for batch in batches:
        qemu.driver.populate(batch)
    before = qemu.pages()
    seconds = 0.0
    for start in range(0, BUFFERS, at_once):
        qemu.driver.offer(batches[start : start + at_once])
        seconds += qemu.kick(0, *others)
    assert before - qemu.pages() == BUFFERS * BATCH
    qemu.driver.offer(batches, 1)
    qemu.kick(1, *others)
    return seconds
