"""Fixtures for all tests."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import TypeVar
from unittest import mock

import examples  # noqa: F401 - its profiles
import pytest
from command_line import command
from console_guest import SOCKET, ConsoleGuest
from huge_pages import pool_of
from mortal_daemon import Mortal, Relayed
from walkthrough import Terminal, checkout

from balloon_plugin import cli
from balloon_plugin.cli import boot
from balloon_plugin.errors import HostError
from balloon_plugin.hosts.vhost_user import turns

T = TypeVar("T")


def pytest_collection_finish():
    """Keep what is collected out of what every search for garbage goes through."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Let coverage rest in slow tests and in Hypothesis: it costs them most.

    Which lines run, quick tests show; and what is reached by chance is no achievement.
    """
    coverage = sys.modules.get("coverage")
    tracer = coverage and coverage.Coverage.current()
    rests = {"slow", "hypothesis"} & {mark.name for mark in item.iter_markers()}
    if not tracer or not rests:
        return (yield)
    with mock.patch.dict(os.environ):
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)  # its child processes, too
        tracer.stop()
        try:
            return (yield)
        finally:
            tracer.start()


@pytest.fixture(scope="session", autouse=True)
def _nobody_rests():
    """Let turns be long where the machine is slow; tests of that say what is long."""
    with mock.patch.object(turns, "LONG_TURN", math.inf):
        yield


@pytest.fixture(scope="session")
def require_real():
    """Give what is really needed: ``kernel = require_real(find_kernel)``.

    Where ``find_kernel`` raises HostError, the test is skipped with its sentence, which
    says what to do. With BALLOON_REQUIRE_REAL=1 in the environment, as in
    continuous integration, it fails instead: there nothing may be left out.
    """

    def require(find: Callable[[], T]) -> T:
        try:
            return find()
        except HostError as error:
            if os.environ.get("BALLOON_REQUIRE_REAL") == "1":
                pytest.fail(f"BALLOON_REQUIRE_REAL=1, but {error}", pytrace=False)
            pytest.skip(str(error))

    return require


@pytest.fixture
def begin_guest(tmp_path):
    """Give a function that boots a machine's guest in a folder of its own."""
    started = []

    def begin(machine, name, mebibytes):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        started.append(ConsoleGuest(machine, folder, mebibytes))
        return started[-1].start()

    yield begin
    for guest in started:
        guest.stop()


@pytest.fixture
def mortal(tmp_path):
    """Give a daemon in a process of its own, which can be killed."""
    mortal = Mortal(tmp_path)
    yield mortal
    mortal.close()


@pytest.fixture
def relayed(mortal, tmp_path):
    """Give a function that begins a relay from a guest in a folder to the daemon."""
    with contextlib.ExitStack() as stack:

        def relayed(*, packed):
            if not packed:
                mortal.kill()
                mortal.packed = False
                mortal.start()
            (tmp_path / "guest").mkdir()
            relay = Relayed(tmp_path / "guest" / SOCKET, mortal)
            stack.callback(relay.close)
            return relay

        yield relayed


@pytest.fixture
def huge_pages(require_real):
    """Have 16 huge pages of 2 MiB."""
    with contextlib.ExitStack() as stack:
        require_real(lambda: stack.enter_context(pool_of(16)))
        yield


# --- the command line ---------------------------------------------------------------


@pytest.fixture
def run(capsys):
    """Run a command; return its exit code, output and errors."""

    def run(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as error:  # argparse
            code = error.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(run):
    """Run a command that cannot be carried out; return the sentence about that."""

    def refused(*words):
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        assert line.startswith("balloon-plugin: ")
        return line.removeprefix("balloon-plugin: ")

    return refused


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to be in, so that paths of sockets are short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def signals():
    """Puts the handlers of signals back that ``serve`` replaces."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def a_machine(monkeypatch):
    """A guest that is never started."""
    machine = SimpleNamespace(byte_order=None, page_size=None)
    monkeypatch.setattr(boot, "find_uml", lambda: machine)


@pytest.fixture
def begin(folder):
    """Start a command that serves, and wait for it; afterwards it is gone."""
    with contextlib.ExitStack() as stack:

        def begin(*words):
            process = subprocess.Popen(  # noqa: S603 - it is our own
                command(*words),
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            for _ in range(words.count("--socket")):
                line = process.stdout.readline()
                while ": waiting for a front end" not in line:
                    assert line, process.stderr.read()
                    line = process.stdout.readline()
            return process

        yield begin


@pytest.fixture
def serve(begin):
    """Start ``serve`` and wait for it; afterwards it is gone, whatever happened."""
    return functools.partial(begin, "serve")


@pytest.fixture
def here(tmp_path):
    """A folder that looks like a checkout, and may be written to."""
    checkout(tmp_path)
    return tmp_path


@pytest.fixture
def terminal(here):
    """Open a terminal there; afterwards it is closed."""
    with contextlib.ExitStack() as stack:

        def terminal():
            opened = Terminal(here)
            stack.callback(opened.close)
            return opened

        yield terminal


@pytest.fixture
def ctl(run):
    """Ask for a view of a device that is served; return it as JSON."""

    def ctl(*words):
        code, out, err = run("ctl", *words, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    return ctl
