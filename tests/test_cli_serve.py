"""``balloon-plugin serve``: the daemon as a process, from its first line to its end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import urllib.request

import pytest
from command_line import RAM, Guest, names_in, until

# --- refused ------------------------------------------------------------------------


@contextlib.contextmanager
def somebody_on(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        yield


IN_USE = "somebody listens on {} already: stop that daemon or choose another path"
NO_SOCKET = "{} exists and is no socket: remove it or choose another path"
IMPOSSIBLE = "the socket {} cannot be made: {}; choose another path"
TWO_OF_A_NAME = (
    "two guests are called mine: give one another name, --socket NAME=mine.sock"
)
NO_FOLDER = "No such file or directory"
LONG = "x" * 108


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--socket alive", IN_USE.format("alive")),
        ("--socket mine --socket alive", IN_USE.format("alive")),
        ("--socket mine --socket b=mine", IN_USE.format("mine")),
        ("--socket mine --socket mine.sock", TWO_OF_A_NAME),
        ("--socket mine --control mine", IN_USE.format("mine")),
        ("--socket mine --control alive", IN_USE.format("alive")),
        ("--socket file", NO_SOCKET.format("file")),
        ("--socket mine --control file", NO_SOCKET.format("file")),
        ("--socket no/mine", IMPOSSIBLE.format("no/mine", NO_FOLDER)),
        ("--socket mine --control no/c", IMPOSSIBLE.format("no/c", NO_FOLDER)),
        (f"--socket {LONG}", IMPOSSIBLE.format(LONG, "AF_UNIX path too long")),
    ],
)
@pytest.mark.usefixtures("signals")
def test_a_socket_that_cannot_be_had_is_refused(refused, folder, words, sentence):
    (folder / "file").touch()
    with somebody_on("alive"):
        assert refused("serve", *words.split(), "--record", "trace") == sentence

    assert names_in(folder) == ["alive", "file"]


# --- as a process -------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_the_sockets_are_gone(serve, folder, number):
    served = serve("--socket", "a", "--socket", "b", "--control", "c")
    assert names_in(folder) == ["a", "b", "c"]

    served.send_signal(number)

    assert served.wait(10) == 0
    assert names_in(folder) == []
    assert (served.stdout.read(), served.stderr.read()) == ("", "")


def test_several_signals_do_not_disturb_the_end(serve, folder):
    served = serve("--socket", "a", "--control", "c")

    for _ in range(50):
        served.send_signal(signal.SIGTERM)
        served.send_signal(signal.SIGINT)

    assert served.wait(10) == 0
    assert names_in(folder) == []
    assert served.stderr.read() == ""


def test_it_ends_while_a_front_end_and_a_client_are_there(serve, folder):
    served = serve("--socket", "a", "--control", "c")
    with contextlib.closing(Guest("a")), socket.socket(socket.AF_UNIX) as client:
        client.connect("c")
        client.recv(1000)

        served.terminate()

        assert served.wait(10) == 0
        assert client.recv(1000) == b""
    assert names_in(folder) == []


def test_a_daemon_that_was_killed_is_in_nobodys_way(serve):
    killed = serve("--socket", "a", "--control", "c")
    killed.kill()
    killed.wait()

    served = serve("--socket", "a", "--control", "c")

    served.terminate()
    assert served.wait(10) == 0


@pytest.mark.parametrize(
    ("size", "kept", "known"),
    [("64K", 16, 16), ("2M", 512, RAM), ("99T", 2**32 - 1, RAM)],
)
def test_a_target_from_before_the_guest_is_kept_until_its_ram_is_known(
    serve, ctl, size, kept, known
):
    serve("--socket", "a", "--control", "c", "--policy", "none", "--target", size)
    until(lambda: ctl("c", "query")["requested"] == kept)

    with contextlib.closing(Guest("a")):
        until(lambda: ctl("c", "query")["driver"])

        status = ctl("c", "query")
        assert (status["requested"], status["advertised"]) == (known, known)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        # Memory that is on huge pages is told of when it is too late to offer more.
        ([], 1 << 1 | 1 << 0),
        (
            ["no-statistics", "no-must-tell-host", "reporting", "hinting"],
            1 << 5 | 1 << 3,
        ),
    ],
)
def test_features_are_offered_as_they_were_chosen(serve, ctl, words, offered):
    chosen = [f"--feature={word}" for word in words]
    serve("--socket", "a", "--control", "c", "--policy", "none", *chosen)

    assert ctl("c", "query")["offered"] == offered


def test_several_guests_share_a_control_socket(serve, refused, ctl, run):
    serve("--socket", "a", "--socket", "b", "--control", "c", "--policy", "none")
    with contextlib.closing(Guest("b")):
        until(lambda: ctl("c", "query", "b")["driver"])

        assert run("ctl", "c", "balloon", "4K", "b")[0] == 0
        assert ctl("c", "query", "b")["requested"] == RAM - 1
        assert ctl("c", "query", "a")["requested"] == 0
        assert refused("ctl", "c", "balloon", "4K", "a") == (
            "the guest's memory is not known: its front end has not connected, or the "
            "guest is starting: ask again when it runs"
        )


def test_metrics_are_served_on_loopback(serve):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = serve("--socket", "a", "--metrics", str(port))

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()

    assert 'balloon_events_total{guest="a",kind="TimePassed"}' in text
    served.terminate()
    assert served.wait(10) == 0


@pytest.mark.usefixtures("signals", "folder")
def test_without_prometheus_one_is_told_what_to_install(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "balloon_plugin.metrics", None)

    assert refused("serve", "--socket", "a", "--metrics", "9") == (
        "metrics need prometheus_client: pip install 'balloon-plugin[metrics]'"
    )


def test_a_front_end_that_talks_nonsense_is_a_sentence(serve, ctl):
    served = serve("--socket", "a", "--socket", "b", "--control", "c")
    with contextlib.closing(Guest("b")), socket.socket(socket.AF_UNIX) as liar:
        liar.connect("a")
        liar.sendall(b"GET / HTTP/1.0\r\n\r\n")
        until(lambda: ctl("c", "query", "b")["driver"])

        with pytest.raises(ConnectionResetError):
            liar.recv(100)
        assert ctl("c", "query", "b")["driver"]
    served.terminate()
    _, log = served.communicate()
    assert "a: the connection ends: " in log
    assert "Traceback" not in log


# --- the state ----------------------------------------------------------------------

STATE = ("--state", ".", "--policy", "none")


def test_a_guest_goes_on_after_the_daemon_was_killed(serve, run, ctl):
    killed = serve("--socket", "a", "--control", "c", *STATE, "--target", "64K")
    with contextlib.closing(Guest("a")) as guest:
        until(lambda: ctl("c", "query")["driver"])
        guest.poke(0x8000, bytes(4))
        guest.offer(0, 0)
        os.eventfd_write(guest.fds["kick0"], 1)
        until(lambda: guest.used(0))
        run("ctl", "c", "balloon", "128K")
        wanted = ctl("c", "query")["requested"]
        killed.kill()
        killed.wait()

        served = serve("--socket", "a", "--control", "c", *STATE, "--target", "64K")
        assert ctl("c", "query")["requested"] == wanted
        assert not ctl("c", "query")["driver"]
        guest.reconnect()
        until(lambda: ctl("c", "query")["driver"])

        status = ctl("c", "query")
        assert (status["requested"], status["faults"]) == (wanted, 1)
    served.terminate()
    assert served.wait(10) == 0


def test_a_damaged_state_leaves_out_its_guest_alone(serve, folder):
    (folder / "a.state").write_text("nonsense\n")

    # Written so, the fixture does not wait for it.
    served = serve("--socket=a", "--socket", "b", *STATE)
    assert not (folder / "a").exists()
    served.terminate()

    assert served.wait(10) == 1
    assert "a: not served: the state in a.state is damaged" in served.stderr.read()


@pytest.mark.usefixtures("signals")
def test_a_damaged_state_of_the_only_guest_is_refused(refused, folder):
    (folder / "a.state").write_text("nonsense\n")

    assert refused("serve", "--socket", "a", *STATE) == (
        "a: not served: the state in a.state is damaged: remove it, and the guest's "
        "driver is judged anew when it starts again"
    )
