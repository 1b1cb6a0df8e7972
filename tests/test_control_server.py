"""The control socket: many clients, good and bad, and none in another's way."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import threading
from contextlib import closing

import pytest
from command_line import until
from control_kit import READY, Client, Served, said
from fakes import RAM_PAGES
from vhost_user_front_end import open_fds

from balloon_plugin.control import ControlServer, ask, connection, server
from balloon_plugin.control.frames import MAX_MESSAGE
from balloon_plugin.errors import HostError
from balloon_plugin.events import Judgement, Verdict

CROWD = said("query-commands")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "control.sock"


@pytest.fixture
def served(path):
    with Served(path) as served:
        yield served


@pytest.fixture
def hurried(monkeypatch):
    """Looks at a guest may follow each other sooner."""
    monkeypatch.setattr("balloon_plugin.control.events.INTERVAL", 0.05)


# --- the socket ---------------------------------------------------------------------


@pytest.mark.usefixtures("served")
def test_the_socket_is_its_users_alone(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_left_at_the_end(path):
    fds, threads = open_fds(), threading.active_count()

    with Served(path) as served:
        client = Client(path)
        client.hear()
        plugins = served.guests["a"].device.plugins
        observers = len(plugins.get_plugins())

    assert not path.exists()
    assert client.hear() is None
    client.close()
    assert (open_fds(), threading.active_count()) == (fds, threads)
    assert len(plugins.get_plugins()) == observers - 1


def test_a_control_socket_that_is_alive_is_not_taken_over(served, path):
    with pytest.raises(HostError, match=r"somebody listens on .* already"):
        ControlServer(path, {}, served.run)

    assert ask(path, "query-commands")


def test_one_that_a_dead_daemon_left_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))

    with Served(path):
        assert ask(path, "query-commands")


def test_one_that_cannot_be_made_is_a_sentence(tmp_path):
    with pytest.raises(HostError, match=r"cannot be made: .*; choose another path"):
        ControlServer(tmp_path / "missing/control.sock", {}, print)


# --- what clients send --------------------------------------------------------------


@pytest.mark.usefixtures("served")
def test_messages_may_come_in_pieces_and_several_at_once(path):
    with closing(Client(path)) as client:
        client.send(READY[:10])
        client.send(READY[10:] + b'{"execute": "query-commands"}\r\n\n{"exec')
        client.send(b'ute": "bogus"}')

        assert "QMP" in client.hear()
        assert client.hear() == {"return": {}}
        assert "return" in client.hear()
        assert client.hear()["error"]["class"] == "CommandNotFound"


@pytest.mark.usefixtures("served")
def test_a_message_that_breaks_off_is_answered(path):
    with closing(Client(path)) as client:
        client.send(READY[:-3])
        client.socket.shutdown(socket.SHUT_WR)

        assert "QMP" in client.hear()
        assert client.hear()["error"]["desc"] == "this is not JSON"
        assert client.hear() is None


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("endless", [b"x", b"[", b'"'])
def test_a_message_without_end_is_cut_off_with_a_sentence(path, endless):
    with closing(Client(path)) as client:
        client.send(endless * MAX_MESSAGE)

        client.hear()
        assert client.hear()["error"]["desc"] == "a command has fewer than 65536 bytes"
        assert client.hear() is None
    assert ask(path, "query-commands")


@pytest.mark.usefixtures("served")
def test_the_longest_message_is_heard(path):
    with closing(Client(path)) as client:
        client.send(READY[:-2].ljust(MAX_MESSAGE - 1) + b"}")

        client.hear()
        assert client.hear() == {"return": {}}


def test_a_command_that_fails_is_answered_and_logged(served, path, caplog, monkeypatch):
    def fail():
        raise KeyError("lost")

    monkeypatch.setattr(served.guests["a"].device, "query", fail)

    with pytest.raises(HostError, match=r"^it failed: KeyError: 'lost'$"):
        ask(path, "query-balloon-status")

    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# --- several of them ----------------------------------------------------------------


def test_clients_that_hang_up_are_forgotten(served, path, capfd):
    for _ in range(20):
        client = Client(path)
        client.send(CROWD * 50)
        client.close()

    until(lambda: not served.server._clients)
    assert capfd.readouterr() == ("", "")


def test_several_clients_are_served_at_once(served, path):
    clients = [Client(path) for _ in range(5)]
    for client in clients:
        client.send(READY)
    for number, client in reversed(list(enumerate(clients, 1))):
        client.send(said("balloon", value=number))

        assert "QMP" in client.hear()
        assert client.hear() == {"return": {}}
        assert client.hear()["return"]["answer"] == "accepted"
    for client in clients:
        client.close()

    assert served.guests["a"].target() == RAM_PAGES


@pytest.mark.usefixtures("served")
def test_a_client_that_is_settled_settles_nothing_for_another(path):
    with closing(Client(path, ready=True)), closing(Client(path)) as other:
        other.send(CROWD)
        other.hear()

        assert other.hear()["error"]["desc"] == "send qmp_capabilities first"


def fill(client):
    """Send commands until nobody takes any more of them."""
    client.socket.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            client.send(CROWD * 1000)


@pytest.mark.usefixtures("served")
def test_a_client_that_reads_no_answers_is_in_nobodys_way(path):
    with closing(Client(path, ready=True)) as client:
        fill(client)

        assert ask(path, "query-commands")


def test_a_client_that_reads_nothing_does_not_keep_the_end_away(path):
    with Served(path):
        client = Client(path, ready=True)
        fill(client)

    client.close()
    assert not path.exists()


@pytest.mark.usefixtures("served")
def test_so_many_are_let_in_and_the_others_wait(path, monkeypatch):
    monkeypatch.setattr(server, "_MOST", 2)
    with closing(Client(path, ready=True)), closing(Client(path, ready=True)) as second:
        third = Client(path)
        third.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            third.socket.recv(1)

        second.close()

        with closing(third):
            third.socket.settimeout(10)
            assert third.socket.recv(1) == b"{"


def test_it_recovers_when_nobody_could_be_let_in(path, monkeypatch):
    monkeypatch.setattr(server, "_REST", 0.01)

    class Full:
        """The listening socket of a process that has no descriptors left, once."""

        def __init__(self, real):
            self._real = real
            self.accepts = 0

        def __getattr__(self, name):
            return getattr(self._real, name)

        def accept(self):
            self.accepts += 1
            if self.accepts == 1:
                raise OSError(24, "Too many open files")
            return self._real.accept()

    served = Served(path)
    full = served.server._file.socket = Full(served.server._file.socket)
    with served:
        assert ask(path, "query-commands")

    assert full.accepts >= 2


def test_a_policy_is_changed_where_the_devices_live(served, path):
    ask(path, "x-set-policy", policy="probe")

    assert served.guests["a"].device.query().policy == "probe"


# --- events -------------------------------------------------------------------------


def test_a_change_is_told_to_all_that_are_ready(served, path):
    with (
        closing(Client(path, ready=True)) as one,
        closing(Client(path, ready=True)) as other,
        closing(Client(path)) as early,
    ):
        early.hear()
        served.run(lambda: served.guests["a"].device.set_target(7))
        served.write_actual(7)

        for client in (one, other):
            told = client.hear()
            assert told["event"] == "BALLOON_CHANGE"
            assert told["data"] == {"id": "a", "actual": (RAM_PAGES - 7) * 4096}
        early.send(READY)
        assert early.hear() == {"return": {}}


def test_a_guest_that_does_nothing_is_not_looked_at(served, path):
    with closing(Client(path, ready=True)) as client:
        served.run(lambda: served.guests["a"].device.set_target(7))
        served.write_actual(7)
        client.hear()

    until(lambda: not served.server._stirred)


@pytest.mark.usefixtures("hurried")
def test_of_many_changes_the_last_is_told(served, path):
    with closing(Client(path, ready=True)) as client:
        served.run(lambda: served.guests["a"].device.set_target(99))
        for actual in range(1, 100):
            served.write_actual(actual)

        told = []
        while not told or told[-1] != RAM_PAGES - 99:
            told.append(client.hear()["data"]["actual"] // 4096)
    assert len(told) < 10


def test_a_verdict_is_told_of_the_guest_that_it_is_about(path):
    with Served(path, "vm1", "vm2") as served, closing(Client(path, ready=True)) as one:
        made = served.guests["vm2"]
        made.policy.verdict = Verdict(Judgement.BUGGY, "SCRIPTED")
        served.write_actual(0, "vm2")

        told = one.hear()

    assert (told["event"], told["data"]["id"]) == ("BALLOON_VERDICT", "vm2")


def test_a_device_that_cannot_be_queried_has_no_news(path, monkeypatch, caplog):
    with Served(path, "a", "b") as served, closing(Client(path, ready=True)) as client:
        monkeypatch.setattr(served.guests["a"].device, "query", lambda: 1 / 0)
        for name in "ab":
            served.run(lambda name=name: served.guests[name].device.set_target(7))
            served.write_actual(7, name)

        assert client.hear()["data"]["id"] == "b"
    assert "a device cannot be queried" in caplog.text


def test_news_are_told_though_nothing_can_be_written_down(path):
    """As by a daemon whose disk is full: it raises after everything that it did."""
    served = Served(path)

    def without_room(function):
        served.run(function)
        raise HostError("the state cannot be written: make room for it")

    with served, closing(Client(path, ready=True)) as client:
        served.server._devices_run = without_room
        served.write_actual(7)

        assert client.hear()["event"] == "BALLOON_CHANGE"
        with pytest.raises(HostError, match="make room for it"):
            ask(path, "query-balloon-status")

    assert not path.exists()


def test_a_client_that_reads_no_events_is_cut_off(served, path, monkeypatch, caplog):
    with closing(Client(path, ready=True)) as deaf, closing(Client(path)) as other:
        other.hear()
        monkeypatch.setattr(connection, "MAX_BACKLOG", -1)
        served.run(lambda: served.guests["a"].device.set_target(7))
        served.write_actual(7)

        assert deaf.hear()["event"] == "BALLOON_CHANGE"
        assert deaf.hear() is None
        other.send(READY)
        assert other.hear() == {"return": {}}
    assert "a control client reads nothing more and is cut off" in caplog.text
