"""``balloon-plugin relay``: a process that holds front ends while ``serve`` dies."""

from __future__ import annotations

import contextlib
import functools
import os
import signal

import pytest
from command_line import Guest, names_in, until


@pytest.fixture
def relay(begin):
    """Start ``relay`` and wait for it; afterwards it is gone, whatever happened."""
    return functools.partial(begin, "relay")


IMPOSSIBLE = (
    "the socket no/a cannot be made: No such file or directory; choose another path"
)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "--socket a --to .",
            "a cannot be the socket of the daemon as well: let --to be another folder",
        ),
        (
            "--socket a --to x/..",
            "a cannot be the socket of the daemon as well: let --to be another folder",
        ),
        (
            "--socket x/a --socket y/a --to back",
            "two front ends would have back/a: name one otherwise",
        ),
        ("--socket no/a --to back", IMPOSSIBLE),
        (
            "--socket a --to x/file",
            "x/file is no folder: let --to be that of the daemon's sockets",
        ),
    ],
)
@pytest.mark.usefixtures("signals")
def test_what_cannot_be_is_refused(refused, folder, words, sentence):
    (folder / "x").mkdir()
    (folder / "x/file").touch()
    assert refused("relay", *words.split()) == sentence


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_sockets_are_gone(relay, folder, number):
    relayed = relay("--socket", "a", "--socket", "b", "--to", "back")
    assert names_in(folder) == ["a", "b"]
    told = [relayed.stderr.readline() for _ in range(2)]

    relayed.send_signal(number)

    assert relayed.wait(10) == 0
    assert names_in(folder) == []
    assert told == [
        f"{name}: no daemon is on back/{name} yet (No such file or directory): "
        "waiting for one\n"
        for name in ("a", "b")
    ]
    assert relayed.stderr.read() == ""


def test_a_daemon_that_comes_later_is_told_of(relay, serve, folder):
    (folder / "back").mkdir()
    relayed = relay("--socket", "a", "--to", "back")
    assert "a: no daemon is on back/a yet" in relayed.stderr.readline()

    serve("--socket", "back/a", "--policy", "none")

    assert relayed.stderr.readline() == "a: the daemon is there\n"


def test_guests_go_on_while_the_daemon_is_killed(relay, serve, ctl, folder):
    (folder / "back").mkdir()
    words = ("--control", "c", "--state", ".", "--policy", "none")
    sockets = ("--socket", "back/a", "--socket", "back/b")
    relayed = relay("--socket", "a", "--socket", "b", "--to", "back")
    with contextlib.closing(Guest("a")) as one, contextlib.closing(Guest("b")) as other:
        for times in range(1, 4):
            served = serve(*sockets, *words)
            for name, guest in (("a", one), ("b", other)):
                until(lambda name=name: ctl("c", "query", name)["driver"])
                guest.offer(0, 0)
                os.eventfd_write(guest.fds["kick0"], 1)
                until(lambda guest=guest, times=times: guest.used(0) == times)
            served.kill()
            served.wait()

        relayed.terminate()
        _, log = relayed.communicate(timeout=10)

    assert relayed.returncode == 0
    assert log.count("a: the daemon is there") == 3
    assert log.count("b: the daemon is there") == 3
    assert "Traceback" not in log
