"""The story with guests that are shell scripts without a device.

For real ones see test_boot_uml.
"""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from balloon_plugin.boot import Ending, Kind, Plan, boot
from balloon_plugin.errors import HostError, PluginError
from balloon_plugin.events import ByteOrder, GuestDescribed
from balloon_plugin.trace import Concluded, decode, read

NUMBERS = (
    "echo GUEST up=1 MemTotal=500 MemFree=400 MemAvailable=400 infl=0/0 check=2048/0"
)
OBEY = f"""
echo GUEST ready up=1
while read -r command rest; do
    case $command in
    insmod) echo "GUEST insmod -> $result" ;;
    poweroff) exit 0 ;;
    *) echo GUEST $command ok ;;
    esac
    {NUMBERS}
done
"""


@dataclass
class Script:
    script: str
    title: str = "a script"
    byte_order: ByteOrder = ByteOrder.LITTLE
    page_size: int = 4096
    driver: str = "virtio_balloon"

    def prepare(self, *_):
        return ("sh", "-c", self.script)

    def use_memory(self, mebibytes):
        return (f"use {mebibytes}",)


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch):
    # Not pytest's own folder, where tests keep what they record.
    tmp_path = Path(tempfile.mkdtemp(prefix="story-"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    threads = threading.active_count()
    yield
    assert list(tmp_path.iterdir()) == []
    tmp_path.rmdir()
    assert threading.active_count() == threads


def tell(script, timeout=20.0):
    steps = []
    plan = Plan("probe", timeout=timeout)
    return boot(Script(script), plan, steps.append), steps


def test_a_guest_that_dies_fails_with_its_last_words():
    result, steps = tell("echo no room for my memory; exit 3")

    assert result.ending is Ending.FAILED
    assert result.reason == "the guest ended with status 3: no room for my memory"
    assert (steps[-1].kind, steps[-1].text) == (Kind.PROBLEM, result.reason)


def test_a_guest_that_does_not_boot_fails_in_time():
    result, steps = tell("read -r _", timeout=0.5)

    assert result.reason == "not booted yet after 0.5 s"
    assert 0.5 <= result.seconds < 5
    assert Kind.WAITING in {step.kind for step in steps}


def test_a_kernel_that_oopses_fails_with_what_it_says():
    oops = "[    1.97] Unable to handle kernel paging request at ffffffff3ff11b00"
    result, steps = tell(f"echo GUEST ready up=1; echo '{oops}'; sleep 100")

    assert result.ending is Ending.FAILED
    assert result.ending.exit_code == 1
    assert result.reason == (
        "the guest's kernel oopsed: "
        "Unable to handle kernel paging request at ffffffff3ff11b00"
    )
    assert (steps[-1].kind, steps[-1].text) == (Kind.PROBLEM, result.reason)


def test_a_guest_without_the_memory_fails():
    result, _ = tell(OBEY.replace("$command ok", "$command $rest failed"))

    assert result.reason == "the guest could not obey: device failed"


def test_a_driver_that_cannot_be_loaded_fails_with_its_error():
    result, _ = tell(f"result=-2; {OBEY}")

    assert result.reason == "the guest cannot load its driver: insmod -> -2"


def test_a_driver_that_does_not_come_fails_in_time():
    result, _ = tell(f"result=0; {OBEY}", timeout=1.0)

    assert result.reason == "the driver is not ready after 1 s"
    assert result.states == ("TESTING",)
    assert result.free == (400 * 1024,)


def test_the_folder_for_temporary_files_may_have_a_long_path(tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 108)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    _, steps = tell(f"result=-2; {OBEY}")

    assert steps
    assert list(folder.iterdir()) == []


def test_steps_come_in_order_of_time():
    _, steps = tell(f"result=-2; {OBEY}")

    times = [step.at for step in steps]
    assert times == sorted(times)
    assert [step.kind for step in steps[:2]] == [Kind.HOST, Kind.POLICY]


def test_nothing_is_told_where_nothing_begins():
    steps = []

    with pytest.raises(PluginError, match="there is no policy"):
        boot(Script(""), Plan("no-such-policy"), steps.append)
    assert steps == []


def test_a_machine_that_cannot_be_prepared_leaves_nothing():
    class Broken(Script):
        def prepare(self, *_):
            raise HostError("no kernel")

    with pytest.raises(HostError, match="no kernel"):
        boot(Broken(""), Plan("probe"), print)


def test_an_interruption_leaves_nothing():
    def interrupt(step):
        if step.kind is Kind.WAITING:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        boot(Script("sleep 100"), Plan("probe"), interrupt)


def test_what_happens_to_the_device_is_recorded_if_asked_for(tmp_path):
    plan = Plan("probe", record=tmp_path / "night.jsonl")
    boot(Script("exit 3"), plan, lambda _step: None)

    header, moments = decode(read(tmp_path / "night.jsonl"))
    entries = [moment.entry for moment in moments]
    assert (header.policy, header.guest) == ("probe", Script.title)
    assert isinstance(entries[0], GuestDescribed)
    assert isinstance(entries[-1], Concluded)
