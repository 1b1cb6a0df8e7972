"""A guest goes on when its connection or its daemon is gone for a while."""

from __future__ import annotations

import errno
from unittest import mock

import pytest
import vhost_user_traces as traces
from vhost_user_front_end import FrontEnd, open_fds
from vhost_user_lives import (
    FIRST_PAGE,
    Guest,
    Host,
    KilledError,
    PackedGuest,
    a_host,
    inflated,
    killed_at,
)
from vhost_user_traces import Sent, number, state

from balloon_plugin import make_device
from balloon_plugin.errors import HostError
from balloon_plugin.hosts import state_file
from balloon_plugin.hosts.vhost_user.daemon import Daemon


@pytest.fixture
def host(tmp_path):
    with a_host(tmp_path) as host:
        yield host


@pytest.fixture
def guest(host):
    guest = Guest(host).start()
    host.guests = [guest]
    yield guest
    host.guests[-1].close()


def again(host):
    """Bring the same driver back on a new connection."""
    host.guests.append(Guest(host, host.guests[-1]))
    return host.guests[-1].start()


# --- the daemon dies ----------------------------------------------------------------


def test_killed_at_any_moment_every_buffer_counts_once(tmp_path):
    moment, lived = 0, False
    while not lived:
        folder = tmp_path / str(moment)
        folder.mkdir()
        host = Host(folder)
        first = Guest(host).start()
        first.send_pages(0, 1, 2)
        first.settle()
        first.send_pages(0, 3, 4, 5)

        lived = killed_at(moment, host.step) is not None
        host.restart()
        second = Guest(host, first).start()
        second.send_pages(0, 6)
        second.settle()

        assert host.policy.seen == inflated(1, 2, 3, 4, 5, 6)
        assert second.used(0) == 6
        status = host.device.query()
        assert (status.ballooned, status.reclaimed) == (6, 6)
        assert status.driver
        second.close()
        host.daemon.close()
        # A prime, so that no place in a loop is always passed over.
        moment += 13

    assert moment > 100


@pytest.mark.parametrize("kind", [Guest, PackedGuest])
def test_killed_between_the_starts_of_two_queues_every_buffer_counts_once(host, kind):
    first = kind(host).start()
    first.send_pages(0, 1, 2)
    first.settle()
    first.send_pages(1, 2)
    first.settle()
    first.send_pages(1, 1)
    with pytest.raises(KilledError), patch_push(host.slot._host.vrings[1].queue):
        first.settle()
    host.restart()
    second = kind(host, first)
    *most, _kick, _enable = second.probe(second.bases, second.features)
    second.say(*traces.UML_CONNECT, *most)

    host.restart()
    third = kind(host, second).start()
    third.send_pages(0, 3)
    third.settle()

    deflated = [["PagesDeflated", FIRST_PAGE + page] for page in (2, 1)]
    assert host.policy.seen == [*inflated(1, 2), *deflated, *inflated(3)]
    third.close()


def patch_push(queue):
    """Die before buffers go back."""
    return mock.patch.object(type(queue), "push", side_effect=KilledError)


def test_the_target_and_actual_are_kept(host, guest):
    host.daemon.call(lambda: host.device.set_target(7))
    guest.send_pages(0, 1)
    guest.settle()
    guest.say(*traces.uml_write_actual(5))

    host.restart()
    assert host.device.query().requested == 7
    assert host.slot.restored
    guest = again(host)

    assert host.device.query().requested == 7
    assert host.device.query().actual == 5


def test_a_target_set_while_the_guest_is_away_holds(host, guest):
    host.daemon.call(lambda: host.device.set_target(7))
    guest.send_pages(0, 1)
    guest.settle()
    host.restart()
    host.daemon.call(lambda: host.device.set_target(9))
    host.restart()

    again(host)

    assert host.device.query().requested == 9
    assert host.device.get_config(0, 4) == bytes([9, 0, 0, 0])


def test_the_driver_reads_its_target_and_looks_for_its_buffers(host, guest):
    guest.send_pages(0, 1)
    guest.settle()
    host.restart()

    guest = again(host)

    # Either may have been lost on the way.
    assert guest.called("call0")
    assert guest.called("call1")
    assert guest.announced()


def test_a_daemon_that_ends_in_order_hands_over_as_well(host, guest):
    guest.send_pages(0, 1)
    guest.settle()

    host.daemon.close()
    host.start()
    guest = again(host)
    guest.send_pages(0, 2)
    guest.settle()

    assert host.policy.seen == inflated(1, 2)


def test_deflation_is_kept_too(host, guest):
    guest.send_pages(0, 1, 2)
    guest.settle()
    guest.send_pages(1, 1)
    guest.settle()

    host.restart()
    again(host)

    assert host.device.query().ballooned == 1


def test_without_a_file_the_death_of_the_daemon_is_the_end(tmp_path):
    host = Host(tmp_path)
    host.kept = False
    host.restart()
    guest = Guest(host).start()
    guest.send_pages(0, 1)
    guest.settle()
    host.restart()

    guest = Guest(host, guest).start()

    assert host.policy.seen == []
    assert not host.slot.restored
    guest.close()
    host.daemon.close()


# --- packed rings -------------------------------------------------------------------


@pytest.fixture
def packed(host):
    guest = PackedGuest(host).start()
    host.guests = [guest]
    yield guest
    host.guests[-1].close()


def again_packed(host):
    host.guests.append(PackedGuest(host, host.guests[-1]))
    return host.guests[-1].start()


def test_packed_rings_go_on_where_they_stood(host, packed):
    guest = packed
    for turn in range(3):
        # More than a lap, so that both wrap counters turn.
        for page in range(80):
            guest.send_pages(0, 100 * turn + page % 20)
            guest.settle()
            assert len(guest.rings[0].returned()) == 1
        host.restart()
        guest = again_packed(host)

    assert len(host.policy.seen) == 240
    assert host.device.query().ballooned == 60
    assert host.device.query().driver


def test_packed_rings_that_are_new_are_another_drivers(host, packed, caplog):
    packed.send_pages(0, 1, 2)
    packed.settle()
    host.restart()
    packed.rings.clear()
    for queue in (0, 1):
        packed.poke(traces.ring_at(queue)[0], bytes(traces.QUEUE_SIZE * 16))

    guest = again_packed(host)
    guest.send_pages(0, 3)
    guest.settle()

    assert "its queues stand at their beginning" in caplog.text
    assert host.policy.seen == inflated(3)
    assert guest.rings[0].returned() == [(0, 0)]


@pytest.mark.slow
def test_killed_at_any_moment_packed_rings_lose_no_buffer(tmp_path):
    moment, lived = 0, False
    while not lived:
        folder = tmp_path / str(moment)
        folder.mkdir()
        host = Host(folder)
        first = PackedGuest(host).start()
        first.send_pages(0, 1, 2)
        first.settle()
        first.send_pages(0, 3, 4, 5)

        lived = killed_at(moment, host.step) is not None
        host.restart()
        second = PackedGuest(host, first).start()
        second.send_pages(0, 6)
        second.settle()

        assert host.policy.seen == inflated(1, 2, 3, 4, 5, 6)
        assert [ident for ident, _ in second.rings[0].returned()] == [*range(6)]
        second.close()
        host.daemon.close()
        moment += 31

    assert moment > 100


# --- the words of QEMU --------------------------------------------------------------


class QemuGuest(Guest):
    """A driver whose front end would be QEMU, if QEMU could connect again.

    To QEMU the back end is a new one then: it has memory and a status to be told.
    """

    def start(self, *, legacy=False):
        bases = [self.used(queue) if self.fds else 0 for queue in (0, 1)]
        features, order = traces.MODERN, {}
        if legacy:
            features, order = traces.LEGACY, {"big": False}
        self.say(*traces.QEMU_CONNECT)
        self.say(*traces.qemu_start(features, bases, first=True, **order))
        # A legacy driver writes byte by byte; each time all that QEMU has is sent.
        self._accesses = 4 if legacy else 1
        return self

    def write_actual(self, pages):
        self.say(*traces.qemu_write(pages) * self._accesses)


@pytest.mark.parametrize("kind", [Guest, PackedGuest])
def test_a_driver_may_be_ready_before_its_queues_start(host, kind):
    guest = kind(host).start()
    guest.send_pages(0, 1, 2)
    guest.settle()
    host.restart()

    guest = kind(host, guest)
    *rings, kick0, enable0, kick1, enable1 = guest.probe(guest.bases, guest.features)
    guest.say(*traces.UML_CONNECT)
    guest.say(Sent("SET_PROTOCOL_FEATURES", number(traces.QEMU_PROTOCOL)))
    guest.say(*rings, Sent("SET_STATUS", number(15)))
    guest.say(kick0, enable0, kick1, enable1)
    guest.send_pages(0, 3)
    guest.settle()

    assert host.policy.seen == inflated(1, 2, 3)
    guest.close()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_driver_goes_on_in_the_words_of_qemu(host, legacy):
    guest = QemuGuest(host).start(legacy=legacy)
    host.daemon.call(lambda: host.device.set_target(3))
    guest.say(*traces.QEMU_READ)
    guest.send_pages(0, 1, 2)
    guest.settle()
    guest.write_actual(2)
    host.restart()

    guest = QemuGuest(host, guest).start(legacy=legacy)
    before = host.device.query()
    guest.say(*traces.QEMU_READ)
    guest.send_pages(0, 3)
    guest.settle()
    guest.write_actual(3)

    assert (before.driver, before.actual, before.ballooned) == (True, 2, 2)
    assert host.policy.seen == inflated(1, 2, 3)
    assert guest.used(0) == 3
    after = host.device.query()
    assert (after.requested, after.actual, after.ballooned) == (3, 3, 3)
    guest.close()


def test_what_qemu_keeps_of_the_configuration_is_known_again(host):
    guest = QemuGuest(host).start(legacy=True)
    guest.send_pages(0, 1)
    guest.settle()
    guest.write_actual(0x100)
    host.restart()
    guest = QemuGuest(host, guest).start(legacy=True)

    # The first byte of four.
    guest.say(*traces.qemu_write(0x101))

    status = host.device.query()
    assert (status.actual, status.actual_clamped) == (0x100, False)
    guest.close()


# --- the connection is lost ---------------------------------------------------------


def test_a_driver_that_comes_back_goes_on(host, guest):
    guest.send_pages(0, 1)
    guest.settle()
    guest.socket.close()
    guest.settle()
    assert not host.device.query().driver

    guest = again(host)

    status = host.device.query()
    assert status.driver
    assert status.ballooned == 1
    assert host.policy.seen == inflated(1)


def test_it_may_lose_its_connection_before_it_shows_itself(host, guest):
    guest.send_pages(0, 1)
    guest.settle()
    host.restart()
    passing = FrontEnd(host.path, host)
    passing.say(*traces.UML_CONNECT)
    passing.close()
    host.step()

    again(host)

    assert host.device.query().ballooned == 1


@pytest.mark.parametrize("restart", [True, False])
def test_another_guest_is_judged_anew(host, guest, restart, caplog):
    guest.send_pages(0, 1)
    guest.settle()
    guest.close()
    guest.settle()
    if restart:
        host.restart()

    other = Guest(host).start(bases=(1, 0))

    assert "its memory is not that of the session which was kept" in caplog.text
    assert host.device.query().driver
    assert host.device.query().ballooned == 0
    other.send_pages(0, 1)
    other.settle()
    host.guests.append(other)


def test_a_queue_that_moved_on_without_us_shows_another_driver(host, guest, caplog):
    guest.send_pages(0, 1)
    guest.settle()
    features = host.device.query().features
    host.restart()
    host.guests.append(Guest(host, guest))

    host.guests[-1].start(bases=(9, 0))

    assert "queue 0 is not where the kept session left it" in caplog.text
    assert host.device.query().ballooned == 0
    assert host.device.query().features == features


def test_a_guest_that_booted_meanwhile_is_judged_anew(host, guest):
    guest.send_pages(0, 1)
    guest.settle()
    host.restart()
    host.guests.append(Guest(host, guest))
    host.guests[-1].poke(0, bytes(0x9000))

    host.guests[-1].start(bases=(0, 0))

    assert host.device.query().driver
    assert host.device.query().ballooned == 0


def test_other_features_show_another_driver(host, guest):
    guest.send_pages(0, 1)
    guest.settle()
    host.restart()
    host.guests.append(Guest(host, guest))

    host.guests[-1].start(features=traces.LEGACY)

    assert host.device.query().features == traces.LEGACY
    assert host.device.query().ballooned == 0


def test_a_driver_that_was_not_ready_becomes_so(host, guest):
    guest.send_pages(0, 1)
    guest.settle()
    host.slot._door.visitor._protocol._requests._session._ready = False
    guest.socket.close()
    guest.settle()
    ready = []
    driver_ready = host.device.driver_ready
    host.device.driver_ready = lambda: ready.append(driver_ready())

    again(host)

    assert ready == [None]


@pytest.mark.parametrize("was_ready", [True, False])
def test_a_driver_that_is_judged_anew_becomes_ready_once(host, guest, was_ready):
    guest.send_pages(0, 1)
    guest.settle()
    host.slot._door.visitor._protocol._requests._session._ready = was_ready
    guest.socket.close()
    guest.settle()
    ready = []
    driver_ready = host.device.driver_ready
    host.device.driver_ready = lambda: ready.append(driver_ready())
    host.guests.append(Guest(host, guest))

    host.guests[-1].start(bases=(9, 0))

    assert ready == [None]


def test_a_guest_whose_memory_does_not_fit_is_judged_anew(host, guest, caplog):
    guest.send_pages(0, 200)
    guest.settle()
    guest.socket.close()
    guest.settle()
    table = traces.table(traces.region(size=0x8_0000))
    trace = [
        sent._replace(payload=table) if sent.request == "SET_MEM_TABLE" else sent
        for sent in traces.uml_probe()
    ]
    bases = {bytes([0]): state(0, 1), bytes([1]): state(1, 0)}
    host.guests.append(Guest(host, guest))

    host.guests[-1].say(*traces.UML_CONNECT)
    for sent in trace:
        if sent.request == "SET_VRING_BASE":
            host.guests[-1].say(sent._replace(payload=bases[sent.payload[:1]]))
        else:
            host.guests[-1].say(sent)

    assert "does not fit" in caplog.text
    assert host.device.query().ballooned == 0


def test_nothing_is_kept_of_a_driver_that_was_reset(host, guest):
    guest.send_pages(0, 1)
    guest.settle()
    guest.say(Sent("SET_PROTOCOL_FEATURES", number(traces.QEMU_PROTOCOL)))
    guest.say(Sent("RESET_DEVICE", ack=True))

    host.restart()

    assert host.slot._keeper.parked is None


def test_a_session_that_was_over_does_not_come_back(host, guest):
    guest.send_pages(0, 1)
    guest.settle()
    guest.socket.close()
    guest.settle()
    assert host.slot._keeper.parked is not None
    other = Guest(host, guest)
    host.guests.append(other)
    other.poke(0, bytes(0x9000))
    other.start()

    other.say(Sent("SET_PROTOCOL_FEATURES", number(traces.QEMU_PROTOCOL)))
    other.say(Sent("RESET_DEVICE", ack=True))
    other.socket.close()
    other.settle()

    assert host.slot._keeper.parked is None


def test_a_device_that_failed_is_not_trusted_again(host, guest):
    guest.send_pages(0, 1)
    guest.settle()
    host.device.queue_notify = lambda _index: 1 // 0

    guest.send_pages(0, 2)
    guest.settle()

    assert not host.slot.connected
    assert host.slot._keeper.parked is None


# --- the file -----------------------------------------------------------------------


def test_a_damaged_file_stops_that_slot_only(host, tmp_path):
    damaged = tmp_path / "damaged.state"
    damaged.write_text("nonsense\n")
    before = open_fds()

    with pytest.raises(HostError, match=r"damaged\.state is damaged: remove it"):
        host.daemon.add(tmp_path / "x.sock", lambda: make_device("none"), state=damaged)

    assert open_fds() == before
    assert not (tmp_path / "x.sock").exists()


def test_a_damaged_session_is_told_with_its_file(host, tmp_path):
    damaged = tmp_path / "damaged.state"
    damaged.write_bytes(state_file._line({"version": 9}))

    with pytest.raises(HostError, match=r"damaged\.state: .* has version 9"):
        host.daemon.add(tmp_path / "x.sock", lambda: make_device("none"), state=damaged)


def full(*_args):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_without_room_for_the_state_no_buffer_goes_back(host, guest, monkeypatch):
    guest.send_pages(0, 1)
    guest.settle()

    with monkeypatch.context() as patch:
        patch.setattr(state_file, "_write_all", full)
        guest.send_pages(0, 2)
        guest.settle()
    assert not host.slot.connected
    assert guest.used(0) == 1

    guest = again(host)
    guest.settle()

    assert guest.used(0) == 2
    assert host.policy.seen == inflated(1, 2)


def test_a_command_without_room_for_the_state_ends_no_session(host, guest, monkeypatch):
    guest.send_pages(0, 1)
    guest.settle()
    with monkeypatch.context() as patch:
        patch.setattr(state_file, "_write_all", full)
        with pytest.raises(HostError, match="No space left on device; make room"):
            host.daemon.call(lambda: host.device.set_target(7))
    guest.send_pages(0, 2)
    guest.settle()

    host.restart()
    again(host)

    assert host.policy.seen == inflated(1, 2)
    assert host.device.query().requested == 7


@pytest.mark.parametrize("bad", [0, 1])
def test_a_state_that_cannot_be_written_keeps_no_other_from_being(tmp_path, bad):
    paths = [tmp_path / name for name in ("a", "b")]
    with Daemon() as daemon:
        slots = [
            daemon.add(
                path.with_suffix(".sock"),
                lambda: make_device("none"),
                state=path.with_suffix(".state"),
            )
            for path in paths
        ]
        no_room = mock.patch.object(slots[bad]._keeper._file, "_write", full)
        with no_room, pytest.raises(HostError, match="cannot be written"):
            daemon.call(lambda: [slot.device.set_target(7) for slot in slots])

        kept = state_file._read(paths[1 - bad].with_suffix(".state"))
    assert kept["target"] == 7


def test_a_file_that_cannot_be_written_is_a_sentence_a_second(
    host, monkeypatch, caplog
):
    with monkeypatch.context() as patch:
        patch.setattr(state_file, "_write_all", full)
        with pytest.raises(HostError, match="No space left on device; make room"):
            host.daemon.call(lambda: host.device.set_target(7))
        host.slot.tick()
    host.slot.tick()

    (record,) = caplog.records
    assert "cannot be written" in record.getMessage()
    assert record.exc_info is None
    host.restart()
    assert host.device.query().requested == 7
