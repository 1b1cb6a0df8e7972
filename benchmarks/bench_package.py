"""What the package costs before it does anything: its import, and an idle device.

Each figure comes from processes of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from contest import Samples

DEVICES = 100


def processor_seconds(program):
    """Return what a run of ``program`` takes of the processor, start to end."""
    arguments = [sys.executable, "-c", program]
    process = os.posix_spawn(sys.executable, arguments, os.environ)
    _, status, usage = os.wait4(process, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime


def imports(program):
    """Return how long the code of each imported module took, in microseconds."""
    told = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-X", "importtime", "-c", program],
        check=True,
        capture_output=True,
        text=True,
    )
    lines = [line.split("|") for line in told.stderr.splitlines()[1:]]
    return {name.strip(): int(own.split()[-1]) for own, _, name in lines}


def test_import(book, yardstick):
    """Compare with the two packages that we depend on, in turns."""
    programs = "pass", "import cstruct, pluggy", "import balloon_plugin"
    turns = []
    for _ in range(15):
        yardstick.look()
        turns.append([processor_seconds(program) for program in programs])
    nothing, needed, ours = map(Samples, zip(*turns, strict=True))

    title, head = "Import", ("what", "least, ms", "usual, ms")
    for what, samples in ("cstruct and pluggy", needed), ("balloon_plugin", ours):
        least, usual = samples.best - nothing.best, samples.usual - nothing.usual
        book.row(title, head, what, f"{least * 1e3:.0f}", f"{usual * 1e3:.0f}")
    book.time("import", ours.best - nothing.best, (120, "ms"), yardstick)


def test_what_the_import_is_made_of(book):
    """Show the modules whose own code takes longest to import."""
    known = imports("pass")
    new = {
        module: microseconds
        for module, microseconds in imports("import balloon_plugin").items()
        if module not in known
    }
    whole = sum(new.values())
    longest = sorted(new, key=new.get, reverse=True)[:8]
    for module in longest:
        share = f"{new[module] / whole:.0%}"
        book.row("Import, by module", ("module", "of the whole"), module, share)


IDLE = """
    import pathlib, sys, tempfile
    from balloon_plugin import make_device
    from balloon_plugin.hosts.vhost_user.daemon import Daemon

    def kib():
        lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
        (resident,) = [line for line in lines if line.startswith("Rss:")]
        return int(resident.split()[1])

    policy, count = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder, Daemon() as daemon:
        def add(name):
            daemon.add(f"{folder}/{name}", lambda: make_device(policy))
        for number in range(10):
            add(f"warm{number}")
        before = kib()
        for number in range(count):
            add(number)
        daemon.step()
        print((kib() - before) / count)
"""


@pytest.mark.parametrize("policy", ["none", "probe", "feature-bit", "evidence"])
def test_an_idle_device(policy, book):
    """Add devices to a daemon, and see how the process grows."""
    program = textwrap.dedent(IDLE)
    told = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", program, policy, str(DEVICES)],
        check=True,
        capture_output=True,
        text=True,
    )

    what = f"memory of an idle device in the daemon, {policy}"
    book.size(what, float(told.stdout), 1024, "KiB")
