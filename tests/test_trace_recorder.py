"""The recorder: what a device lives through is in its trace."""

from __future__ import annotations

import pytest
from fakes import FakeHost, Recorder, ScriptedPolicy

from balloon_plugin import __version__, make_device
from balloon_plugin.errors import HostError
from balloon_plugin.events import (
    DeviceReset,
    Evidence,
    GuestDescribed,
    Judgement,
    PluginFailed,
    TargetRead,
    Verdict,
)
from balloon_plugin.trace import Concluded, decode, files, read, recording

SURE = Verdict(Judgement.GOOD, "SCRIPTED", evidence=(Evidence("it", "shows."),))


@pytest.fixture
def clock():
    """A clock that goes on by a quarter of a second whenever it is looked at."""
    times = iter(range(1_000_000))
    return lambda: next(times) / 4


def parts(path):
    header, moments = decode(read(path))
    return header, [moment.entry for moment in moments]


def test_all_that_an_observer_sees_is_written_down(tmp_path):
    witness = Recorder()
    device = make_device("probe", observers=[witness])
    with recording(device, tmp_path / "x", guest="vm 1", split="a=1", salt="s") as made:
        device.realize(FakeHost())
        device.get_config(0, 4)
        device.set_config(4, bytes([16, 0, 0, 0]))
        device.set_target(100)
        device.reset()

    header, entries = parts(made.path)
    assert (header.package, header.policy, header.offers) == (__version__, "probe", 0)
    assert (header.guest, header.split, header.salt) == ("vm 1", "a=1", "s")
    assert [each for each in entries if not isinstance(each, Concluded)] == (
        witness.events
    )
    assert isinstance(entries[0], GuestDescribed)


def test_the_header_tells_what_the_policy_offers(tmp_path):
    device = make_device("feature-bit:bit=9")
    with recording(device, tmp_path / "x"):
        device.realize(FakeHost())

    assert parts(tmp_path / "x")[0].offers == 1 << 9


def test_times_are_microseconds_since_the_first_event(tmp_path, clock):
    policy = ScriptedPolicy()
    device = make_device(policy)
    with recording(device, tmp_path / "x", clock=clock):
        device.realize(FakeHost())
        device.get_config(0, 4)

    times = [moment.at for moment in decode(read(tmp_path / "x"))[1]]
    assert times == [250_000 * (number + 1) for number in range(len(times))]


def test_what_a_reset_makes_forgotten_is_written_before_it(tmp_path):
    policy = ScriptedPolicy()
    device = make_device(policy)
    with recording(device, tmp_path / "x"):
        device.realize(FakeHost())
        policy.verdict = SURE
        device.get_config(0, 4)
        device.reset()

    entries = parts(tmp_path / "x")[1]
    reset = entries.index(DeviceReset())
    assert entries[reset - 1] == Concluded(SURE)
    assert TargetRead in {type(each) for each in entries[:reset]}


def test_what_was_told_is_not_said_twice(tmp_path):
    device = make_device(ScriptedPolicy())
    with recording(device, tmp_path / "x"):
        device.realize(FakeHost())
        device.reset()
        device.reset()

    entries = parts(tmp_path / "x")[1]
    assert [each for each in entries[:-1] if isinstance(each, Concluded)] == []


def test_a_trace_that_ends_in_order_says_what_was_concluded(tmp_path):
    policy = ScriptedPolicy()
    device = make_device(policy)
    with recording(device, tmp_path / "x"):
        device.realize(FakeHost())
        policy.verdict = SURE
        device.get_config(0, 4)

    assert parts(tmp_path / "x")[1][-1] == Concluded(SURE)


def test_also_if_the_host_was_gone_before(tmp_path):
    device = make_device("probe")
    with recording(device, tmp_path / "x"):
        device.realize(FakeHost())
        device.unrealize()

    last = parts(tmp_path / "x")[1][-1]
    assert last.verdict.state == "TESTING"


def test_a_device_that_is_never_realized_leaves_an_empty_file(tmp_path):
    with recording(make_device("probe"), tmp_path / "x"):
        pass

    assert (tmp_path / "x").read_bytes() == b""


def test_a_device_that_is_realized_is_too_late(tmp_path):
    device = make_device("probe")
    device.realize(FakeHost())

    with (
        pytest.raises(HostError, match="record or watch it before"),
        recording(device, "x"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_the_trace_and_nothing_else(tmp_path, monkeypatch):
    witness = Recorder()
    device = make_device("probe", observers=[witness])
    with recording(device, tmp_path / "x"):
        device.realize(FakeHost())
        monkeypatch.setattr(files._Plain, "write", full)
        assert device.get_config(0, 4) == bytes([16, 0, 0, 0])
        device.get_config(0, 4)

    (failure,) = witness.of(PluginFailed)
    assert (failure.hook, failure.error) == ("balloon_event", "OSError: full")


def full(_sink, _line):
    raise OSError("full")
