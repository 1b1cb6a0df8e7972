from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
import threading

import pytest
import vhost_user_traces as traces
from vhost_user_front_end import Device, FrontEnd, open_fds

from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder
from balloon_plugin.hosts.vhost_user import Daemon, door, server
from balloon_plugin.hosts.vhost_user import daemon as daemon_module


@pytest.fixture
def daemon():
    with Daemon() as daemon:
        yield daemon


@pytest.fixture
def path(tmp_path):
    return tmp_path / "balloon.sock"


@pytest.fixture
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


# --- sockets ------------------------------------------------------------------------


@pytest.mark.usefixtures("open_umask")
def test_the_socket_is_its_users_alone(daemon, path):
    daemon.add(path, Device)

    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_a_path_may_be_text(daemon, path):
    slot = daemon.add(str(path), Device)

    assert slot.path == path


def test_sockets_and_descriptors_are_gone_at_the_end(path):
    before = open_fds()

    with Daemon() as daemon:
        slot = daemon.add(path, Device)
        front_end = FrontEnd(path, daemon)
        front_end.say(*traces.UML_CONNECT, *traces.uml_probe())
    front_end.close()
    daemon.close()

    assert slot.device.told()[-2:] == [("guest_changed",), ("unrealize",)]
    assert not path.exists()
    assert open_fds() == before


def test_a_slot_can_be_removed(daemon, path):
    slot = daemon.add(path, Device)

    daemon.remove(slot)

    assert not path.exists()
    daemon.add(path, Device)


def test_a_socket_that_is_alive_is_not_taken_over(daemon, path):
    daemon.add(path, Device)

    with pytest.raises(HostError, match=r"somebody listens on .* already: stop that"):
        daemon.add(path, Device)

    FrontEnd(path, daemon).close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing/balloon.sock", "No such file or directory"), ("x" * 110, "too long")],
)
def test_a_socket_that_cannot_be_made_is_a_sentence(daemon, tmp_path, name, reason):
    devices = []
    before = open_fds()

    with pytest.raises(HostError, match=f"cannot be made: .*{reason}"):
        daemon.add(tmp_path / name, lambda: devices.append(Device()) or devices[0])

    assert devices[0].told() == [("realize",), ("unrealize",)]
    assert open_fds() == before


# --- slots --------------------------------------------------------------------------


def test_the_device_is_there_before_a_front_end_is(daemon, path):
    slot = daemon.add(path, Device, byte_order=ByteOrder.BIG, page_size=65536)

    assert slot.device.told() == [("realize",)]
    facts = slot.device.host.facts
    assert facts.ram == ()
    assert facts.byte_order is ByteOrder.BIG
    assert facts.page_size == 65536
    assert facts.host_page_size == 4096
    assert not slot.connected


def test_a_device_that_cannot_be_made_leaves_nothing(daemon, path):
    def fail():
        raise HostError("no such policy")

    with pytest.raises(HostError, match="no such policy"):
        daemon.add(path, fail)

    assert not path.exists()


def test_what_the_user_told_of_the_guest_holds_on_legacy(daemon, path):
    slot = daemon.add(path, Device, byte_order=ByteOrder.BIG)
    front_end = FrontEnd(path, daemon)

    front_end.say(*traces.UML_CONNECT, *traces.uml_probe(traces.LEGACY))

    assert slot.device.host.queue(0).byte_order is ByteOrder.BIG
    front_end.close()


def test_one_front_end_at_a_time(daemon, path, caplog):
    slot = daemon.add(path, Device)
    first = FrontEnd(path, daemon)
    first.settle()

    second = FrontEnd(path, daemon)
    second.settle()

    assert second.cut_off
    assert "a second front end came and was sent away" in caplog.text
    assert slot.connected
    assert first.say(*traces.UML_CONNECT[:2])
    first.close()
    second.close()


def test_a_front_end_that_died_makes_room_at_once(daemon, path):
    slot = daemon.add(path, Device)
    dead = FrontEnd(path, daemon)
    dead.settle()
    again = FrontEnd(path, daemon)
    dead.close()
    slot._door._accept()  # before anybody noticed

    assert slot.connected
    assert not again.cut_off
    assert again.say(*traces.UML_CONNECT[:2])
    again.close()


def test_a_front_end_that_died_with_words_unread_makes_room_too(daemon, path):
    slot = daemon.add(path, Device)
    dead = FrontEnd(path, daemon)
    dead.settle()
    again = FrontEnd(path, daemon)
    dead.raw(b"\1")
    dead.close()
    slot._door._accept()

    assert slot.connected
    assert again.say(*traces.UML_CONNECT[:2])
    again.close()


def test_without_descriptors_nobody_is_let_in_for_a_while(
    daemon, path, monkeypatch, caplog
):
    monkeypatch.setattr(door, "TICK", 0.01)
    slot = daemon.add(path, Device)
    listener = slot._door._listener

    class Full:
        fileno = listener.fileno
        close = listener.close

        def accept(self):
            raise OSError(errno.EMFILE, "Too many open files")

    slot._door._listener = Full()
    front_end = FrontEnd(path, daemon)
    front_end.settle()
    assert len(caplog.records) == 1
    assert "cannot be let in" in caplog.text

    slot._door._listener = listener
    for _ in range(10):
        daemon.step(0.01)

    assert slot.connected
    front_end.close()


def test_a_slot_that_is_closed_while_it_rests_stays_closed(daemon, path, monkeypatch):
    monkeypatch.setattr(door, "TICK", 0.01)
    slot = daemon.add(path, Device)
    slot._door._rest(OSError(errno.EMFILE, "Too many open files"))

    daemon.remove(slot)
    for _ in range(5):
        daemon.step(0.01)

    assert not path.exists()


# --- time ---------------------------------------------------------------------------


def test_time_passes_with_and_without_a_front_end(daemon, path, monkeypatch):
    monkeypatch.setattr(server, "TICK", 0.01)
    daemon._tick()
    slot = daemon.add(path, Device)

    def ticks():
        for _ in range(10):
            daemon.step(0.02)
        found = ("tick",) in slot.device.calls
        slot.device.calls.clear()
        return found

    assert ticks()
    front_end = FrontEnd(path, daemon)
    front_end.settle()
    assert slot.connected
    assert ticks()
    front_end.close()


def test_a_device_that_fails_as_time_passes_harms_no_other(daemon, tmp_path, caplog):
    bad, good = (daemon.add(tmp_path / name, Device) for name in ("bad", "good"))
    bad.device.tick = lambda: 1 // 0

    daemon._tick()

    assert ("tick",) in good.device.calls
    assert "the device failed" in caplog.text


# --- running ------------------------------------------------------------------------


@contextlib.contextmanager
def in_a_thread(daemon):
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        yield thread
    finally:
        daemon.stop()
        thread.join()


@pytest.fixture
def running(daemon):
    with in_a_thread(daemon) as thread:
        yield thread


def test_a_call_runs_in_the_daemons_thread(daemon, running):
    assert daemon.call(threading.get_ident) == running.ident
    assert daemon.call(lambda: daemon.call(threading.get_ident)) == running.ident


@pytest.mark.usefixtures("running")
def test_a_call_raises_what_its_function_does(daemon):
    with pytest.raises(ZeroDivisionError):
        daemon.call(lambda: 1 // 0)


@pytest.mark.usefixtures("running")
def test_slots_can_be_added_while_it_runs(daemon, path):
    slot = daemon.call(lambda: daemon.add(path, Device))

    with socket.socket(socket.AF_UNIX) as front_end:
        front_end.connect(str(path))
        front_end.sendall(b"nonsense++++")
        assert front_end.recv(1) == b""
    daemon.call(lambda: daemon.remove(slot))


@pytest.fixture
def told(daemon, path):
    """A front end with a channel, and a call that tells it of a change."""
    slot = daemon.add(path, Device)
    front_end = FrontEnd(path, daemon)
    front_end.say(*traces.UML_CONNECT, *traces.uml_probe())
    front_end.announced()
    yield front_end, lambda: daemon.call(slot.device.host.notify_config)
    front_end.close()


def test_a_call_returns_when_what_it_told_was_read(daemon, told, monkeypatch):
    front_end, tell = told
    monkeypatch.setattr(daemon_module, "READ_WITHIN", 60)
    with in_a_thread(daemon):
        calling = threading.Thread(target=tell)
        calling.start()

        calling.join(0.05)
        assert calling.is_alive()
        assert front_end.announced()
        calling.join(5)

        assert not calling.is_alive()


def test_a_call_waits_not_for_ever_for_a_front_end_that_does_not_read(
    daemon, told, monkeypatch
):
    front_end, tell = told
    monkeypatch.setattr(daemon_module, "READ_WITHIN", 0.01)

    with in_a_thread(daemon):
        tell()

    assert front_end.announced()


def test_a_call_without_a_running_daemon_waits_for_nobody(told, monkeypatch):
    front_end, tell = told
    monkeypatch.setattr(daemon_module, "READ_WITHIN", 60)

    tell()

    assert front_end.announced()


def test_a_call_waits_for_nobody_whom_it_did_not_tell(daemon, told, monkeypatch):
    _, tell = told
    tell()
    monkeypatch.setattr(daemon_module, "READ_WITHIN", 60)

    with in_a_thread(daemon):
        assert daemon.call(lambda: 5) == 5


def test_a_call_without_a_running_daemon_runs_here(daemon):
    assert daemon.call(threading.get_ident) == threading.get_ident()


def test_calls_are_answered_though_the_daemon_stops(daemon):
    for _ in range(20):
        thread = threading.Thread(target=daemon.run)
        thread.start()
        asking = [
            threading.Thread(target=daemon.call, args=(lambda: None,)) for _ in range(4)
        ]
        for each in asking:
            each.start()
        daemon.stop()
        for each in (*asking, thread):
            each.join(5)
            assert not each.is_alive()


def test_a_daemon_that_is_stopped_first_does_not_begin(daemon):
    daemon.stop()

    daemon.run()
    assert not daemon.step()


def test_closing_twice_is_no_harm(daemon):
    daemon.close()
    daemon.close()


def test_a_daemon_waits_when_there_is_nothing_to_do(daemon, path):
    daemon.add(path, Device)

    assert not daemon.step(0.01)


def test_comings_and_goings_are_in_the_log(daemon, path, caplog):
    caplog.set_level(logging.INFO)
    daemon.add(path, Device)
    front_end = FrontEnd(path, daemon)
    front_end.settle()
    front_end.close()
    front_end.settle()

    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: a front end connected",
        f"{path}: the front end went",
    ]
