"""Our own end of a control socket."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading

import pytest
from control_kit import RAM, Served

from balloon_plugin.control import Client, ask, client
from balloon_plugin.errors import HostError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "control.sock"


@pytest.fixture
def served(path):
    with Served(path) as served:
        yield served


def test_a_question_is_answered(served, path):
    answer = ask(path, "balloon", value=RAM - 4096)

    assert answer["answer"] == "accepted"
    assert served.guests["a"].target() == 1


def test_events_in_between_are_passed_over(served, path):
    with Client(path) as talk:
        talk.execute("balloon", value=RAM - 4096)
        served.write_actual(1)

        answers = [talk.execute("query-balloon") for _ in range(50)]

    assert answers == [{"actual": RAM - 4096}] * 50


@pytest.mark.usefixtures("served")
def test_an_error_is_raised_with_its_words(path):
    with pytest.raises(HostError, match=r"^'value' must be a whole number$"):
        ask(path, "balloon", value="much")


def test_another_users_socket_is_told_from_a_wrong_path(path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)

    with pytest.raises(HostError, match="; only the user who started serve may"):
        ask(path, "query-commands")


def answered_with(path, data):
    """Let somebody listen who is no device; return the sentence about that."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()

        def serve():
            peer, _ = listener.accept()
            with peer:
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(4096):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(HostError) as caught:
            ask(path, "query-commands")
        thread.join()
    return str(caught.value)


GREETING = b'{"QMP": {"version": {"package": "balloon_plugin"}}}\n'
QEMU = b'{"QMP": {"version": {"qemu": {"major": 10}, "package": ""}}}\n'
NO_QMP = "what listens there is no control socket"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it hung up"),
        (b"220 mail ready\r\n", NO_QMP),
        (b"[]\n1\n2\n", NO_QMP),
        (b"[" * 100_000 + b"\n", NO_QMP),
        (QEMU, NO_QMP),
        (GREETING + b'{"return": {}}\n', "it hung up"),
        (GREETING + b'{"return": {}}\n[]\n', NO_QMP),
    ],
)
def test_somebody_who_speaks_no_qmp_is_no_device(path, data, reason):
    assert answered_with(path, data) == (
        f"no device answers on {path} ({reason}); give serve's --control path"
    )


def test_somebody_who_says_nothing_is_not_waited_for_long(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()

        with pytest.raises(HostError, match=r"no device answers .*timed out"):
            Client(path, patience=0.1)


@contextlib.contextmanager
def somebody_who_says(path, start, again):
    """Let somebody listen who repeats himself for as long as he is heard."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()

        def serve():
            peer, _ = listener.accept()
            with peer, contextlib.suppress(OSError):
                peer.sendall(start)
                while True:
                    peer.sendall(again)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def test_an_answer_without_end_takes_no_memory_without_end(path, monkeypatch):
    monkeypatch.setattr(client, "_LONGEST", 4096)
    with (
        somebody_who_says(path, b"", b"x" * 1000),
        pytest.raises(HostError, match=NO_QMP),
    ):
        Client(path)


def test_events_are_not_listened_to_for_ever(path):
    start = GREETING + b'{"return": {}}\n'
    with (
        somebody_who_says(path, start, b'{"event": "NOISE"}\n'),
        pytest.raises(HostError, match="there are events, and no answer"),
        Client(path, patience=0.1) as talk,
    ):
        talk.execute("query-balloon")


def test_nobody_listens(path):
    with pytest.raises(HostError, match=r"\(No such file or directory\); give serve's"):
        ask(path, "query-commands")
