from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from balloon_plugin.boot import Ending, Kind, Plan, boot, uml
from balloon_plugin.boot.modules import Module
from balloon_plugin.boot.uml import UserModeLinux, find_uml
from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder

MEBIBYTE = 1 << 20
TARGET = 128 * MEBIBYTE


# --- without a guest ----------------------------------------------------------------


@pytest.fixture
def bin_folder(tmp_path, monkeypatch):
    """A PATH with nothing on it, and no modules."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(uml, "MODULES", tmp_path / "modules")
    return folder


def install(path, content):
    path.write_bytes(content)
    path.chmod(0o755)


def install_kernel(folder, script=b"echo 6.1.0"):
    install(folder / "linux.uml", b"#!/bin/sh\n" + script)


def install_modules(tmp_path):
    folder = tmp_path / "modules/6.1.0"
    folder.mkdir(parents=True)
    (folder / "modules.builtin").write_text("")
    (folder / "modules.dep").write_text("virtio_balloon.ko:\n")
    (folder / "virtio_balloon.ko").write_bytes(b"driver")


def test_all_that_is_needed_is_found(bin_folder, tmp_path):
    install_kernel(bin_folder)
    install_modules(tmp_path)
    install(bin_folder / "busybox", b"tools")

    found = find_uml()
    assert found.title == "User-Mode Linux 6.1.0"
    assert found.modules == (Module("virtio_balloon", b"driver"),)
    assert found.busybox == b"tools"


@pytest.mark.usefixtures("bin_folder")
def test_without_a_kernel_one_is_told_what_to_install():
    with pytest.raises(HostError, match=r"linux\.uml .* apt install user-mode-linux"):
        find_uml()


def test_a_kernel_without_modules_is_said(bin_folder):
    install_kernel(bin_folder)
    install(bin_folder / "busybox", b"tools")

    with pytest.raises(HostError, match="install the modules of this kernel"):
        find_uml()


def test_a_kernel_that_does_not_work_is_said(bin_folder):
    install_kernel(bin_folder, b"exit 3")

    with pytest.raises(HostError, match="does not tell its version"):
        find_uml()


@pytest.fixture
def machine():
    return UserModeLinux(
        Path("/usr/bin/linux.uml"), "6.1.0", b"tools", (Module("driver", b"code"),)
    )


def test_the_command_line_has_no_path_but_the_kernels(machine, tmp_path):
    folder = tmp_path / "with space:and colon"
    folder.mkdir()

    assert machine.prepare(folder, "balloon.sock", 64 * MEBIBYTE) == (
        "/usr/bin/linux.uml",
        "mem=64M",
        "initrd=initrd.gz",
        "virtio_uml.device=balloon.sock:5",
        "con=null",
        "con0=fd:0,fd:1",
        "quiet",
        "uml_dir=.",
        "umid=guest",
    )
    assert (folder / "initrd.gz").read_bytes().startswith(b"\x1f\x8b")


def test_what_is_known_of_the_guest(machine):
    assert machine.byte_order is ByteOrder(sys.byteorder)
    assert machine.page_size == 4096
    assert machine.driver == "virtio_balloon"
    assert machine.use_memory(100) == ("use 100",)


def test_memory_that_does_not_fit_is_refused(machine, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=64 * MEBIBYTE)
    monkeypatch.setattr(uml, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(HostError, match=r"has 64 MiB free .* needs 512: .*--shm-size"):
        machine.prepare(tmp_path, "balloon.sock", 512 * MEBIBYTE)


def test_without_shared_memory_the_kernel_looks_elsewhere(
    machine, tmp_path, monkeypatch
):
    monkeypatch.setattr(uml, "SHARED_MEMORY", tmp_path / "none")

    assert machine.prepare(tmp_path, "balloon.sock", 1 << 60)


@pytest.fixture
def nothing_there():
    def find():
        raise HostError("install it")

    return find


def test_what_is_missing_skips_a_test(require_real, nothing_there, monkeypatch):
    monkeypatch.delenv("BALLOON_REQUIRE_REAL", raising=False)

    with pytest.raises(pytest.skip.Exception, match="install it"):
        require_real(nothing_there)


def test_what_is_missing_fails_where_nothing_may_be_left_out(
    require_real, nothing_there, monkeypatch
):
    monkeypatch.setenv("BALLOON_REQUIRE_REAL", "1")

    with pytest.raises(pytest.fail.Exception, match="install it"):
        require_real(nothing_there)


# --- with a guest -------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_uml(require_real):
    return require_real(find_uml)


def is_alive(process):
    """A zombie is not: it waits for a parent that may never ask."""
    return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"


def processes_in(folder):
    """Return the processes whose working folder is, or was, below this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            below = str((process / "cwd").readlink()).startswith(str(folder))
            if below and is_alive(process):
                found.append(process.name)
        except OSError:
            continue
    return found


def resources():
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(scope="module")
def told(real_uml, tmp_path_factory):
    """Boot once under each policy; give the result, the steps and what was left."""
    stories = {}

    def tell(policy):
        if policy not in stories:
            stories[policy] = tell_once(real_uml, policy, tmp_path_factory)
        return stories[policy]

    return tell


def tell_once(machine, policy, tmp_path_factory):
    folder, before, steps = tmp_path_factory.mktemp("boot"), resources(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        result = boot(machine, Plan(policy), steps.append)
    return SimpleNamespace(
        result=result,
        steps=steps,
        texts=[step.text for step in steps if step.kind is not Kind.WAITING],
        files=list(folder.iterdir()),
        processes=processes_in(folder),
        resources=(before, resources()),
    )


BELIEVING = ("none", "probe", "feature-bit")
REFUSING = "feature-bit:always=yes"
STATES = {
    "none": ("WAITING", "BELIEVED"),
    "probe": ("TESTING", "CLEANUP", "GOOD"),
    "feature-bit": ("WAITING", "LITTLE_ENDIAN"),
    REFUSING: ("WAITING", "NOT_ACKED"),
}


@pytest.mark.real
@pytest.mark.parametrize("policy", BELIEVING)
def test_a_driver_that_is_believed_reaches_the_target(told, policy):
    result = told(policy).result

    assert result.ending is Ending.REACHED
    assert result.reclaimed == TARGET // 4096


@pytest.mark.real
@pytest.mark.parametrize("policy", STATES)
def test_the_states_go_by_in_order(told, policy):
    assert told(policy).result.states == STATES[policy]


@pytest.mark.real
@pytest.mark.parametrize("policy", BELIEVING)
def test_the_hosts_memory_really_comes_back(told, policy):
    before, filled, _ = told(policy).result.held

    # The guest may use some new memory meanwhile, and have used some less than all.
    assert before - filled > 0.9 * TARGET


@pytest.mark.real
@pytest.mark.parametrize("policy", BELIEVING)
def test_the_guest_gives_the_memory_and_gets_it_again(told, policy):
    before, filled, after = told(policy).result.free

    assert before - filled == pytest.approx(TARGET, rel=0.1)
    assert after - filled == pytest.approx(TARGET, rel=0.1)


@pytest.mark.real
def test_its_rings_are_packed_and_that_proves_its_driver(told):
    """Linux 6.1 accepts what is offered, and starts all of its rings at 0."""
    story = told("evidence")

    assert any("VIRTIO_F_RING_PACKED accepted" in text for text in story.texts)
    assert story.result.states[-1] == "GOOD"
    assert story.result.ending is Ending.REACHED
    assert story.result.reclaimed == TARGET // 4096
    assert story.result.intact


@pytest.mark.real
def test_a_driver_that_does_not_know_the_bit_is_refused_with_the_reason(told):
    story = told(REFUSING)

    assert story.result.ending is Ending.REFUSED
    assert "VIRTIO_BALLOON_F_ENDIAN_SAFE" in story.result.reason
    assert any(story.result.reason in text for text in story.texts)


@pytest.mark.real
def test_nothing_is_taken_from_a_guest_that_is_refused(told):
    result = told(REFUSING).result

    assert result.reclaimed == 0
    assert result.ending.exit_code == 0


@pytest.mark.real
@pytest.mark.parametrize("policy", STATES)
def test_the_guest_loses_nothing_and_shuts_down_in_order(told, policy):
    result = told(policy).result

    assert result.intact
    assert result.clean


@pytest.mark.real
@pytest.mark.parametrize("policy", STATES)
def test_nothing_is_left(told, policy):
    story = told(policy)

    assert story.files == []
    assert story.processes == []
    assert story.resources[0] == story.resources[1]


@pytest.mark.real
def test_the_story_can_be_read(told):
    texts = told("probe").texts

    assert texts[0].startswith("boots User-Mode Linux")
    assert texts[-1] == "shut down in order"
    assert [text for text in texts if text.startswith("target of 128 MiB deferred")]
    assert [text for text in texts if "came back" in text]


# --- interrupted --------------------------------------------------------------------

PATIENCE = 20.0

ENDLESS = """
import signal, sys, tempfile
from balloon_plugin.boot import Plan, boot_uml
# A shell lets its jobs in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
tempfile.tempdir = sys.argv[1]
boot_uml(Plan("probe"), lambda step: print(step.text, flush=True))
"""


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.usefixtures("real_uml")
def test_an_interruption_leaves_nothing(tmp_path, number):
    with subprocess.Popen(  # noqa: S603 - the script above
        [sys.executable, "-c", ENDLESS, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as us:
        while "is up" not in us.stdout.readline():
            assert us.poll() is None
        us.send_signal(number)
        us.communicate(timeout=PATIENCE)

    end = time.monotonic() + PATIENCE
    while processes_in(tmp_path) or list(tmp_path.iterdir()):
        assert time.monotonic() < end, "something is left"
        time.sleep(0.05)
    assert us.returncode == -number
