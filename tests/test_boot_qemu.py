from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from real_guests import Life, find_distribution, find_tools, options_for

from balloon_plugin.boot import Ending, Kind, Plan, boot, initramfs, qemu
from balloon_plugin.boot.emulator import DEVICE, PCI_DEVICE, Emulator
from balloon_plugin.boot.init import root_files
from balloon_plugin.boot.modules import load_modules
from balloon_plugin.boot.programs import find_busybox
from balloon_plugin.boot.qemu import BOARDS, Qemu, QemuOptions, Transport, find_qemu
from balloon_plugin.errors import HostError
from balloon_plugin.events import ByteOrder

MEBIBYTE = 1 << 20
QEMU = Emulator(("/opt/qemu", "aarch64"), "11.1.3")


# --- the command line ---------------------------------------------------------------


@pytest.fixture
def options(tmp_path):
    for name in ("Image", "initrd"):
        (tmp_path / name).touch()
    return QemuOptions(tmp_path / "Image", tmp_path / "initrd", arch="aarch64")


@pytest.fixture
def make(options, monkeypatch):
    """Return the machine of some options, with a QEMU that has every device."""
    asked = []

    def find(command, device):
        asked.append((command, device))
        return QEMU

    def make_one(**chosen):
        found = find_qemu(replace(options, **chosen))
        return found, asked[-1]

    monkeypatch.setattr(qemu, "find_emulator", find)
    return make_one


def command_of(machine):
    return machine.prepare(Path("/private"), "balloon.sock", 192 * MEBIBYTE)


def follow(command, option):
    """Return what follows each occurrence of an option."""
    return [value for word, value in itertools.pairwise(command) if word == option]


def test_the_whole_command_line(make, options):
    machine, asked = make()

    assert asked == ("qemu-system-aarch64", DEVICE)
    assert " ".join(command_of(machine)) == (
        "/opt/qemu aarch64 -machine virt,memory-backend=mem -cpu cortex-a57 -accel tcg "
        "-m 192M -object memory-backend-memfd,id=mem,size=192M,share=on "
        f"-no-user-config -nodefaults -display none -kernel {options.kernel} "
        f"-initrd {options.initrd} "
        "-append console=ttyAMA0 rdinit=/init drv=none quiet "
        "-chardev stdio,id=console,signal=off -serial chardev:console "
        "-chardev socket,id=balloon,path=balloon.sock "
        "-global virtio-mmio.force-legacy=on "
        "-device vhost-user-test-device,chardev=balloon,virtio-id=5,num_vqs=5,"
        "vq_size=128,config_size=16"
    )


def test_paths_do_not_depend_on_where_it_is_started(make, options, monkeypatch):
    monkeypatch.chdir(options.kernel.parent)
    machine, _ = make(kernel=Path("Image"), initrd=Path("initrd"))

    command = command_of(machine)
    assert follow(command, "-kernel") == [str(options.kernel)]
    assert follow(command, "-initrd") == [str(options.initrd)]


def test_what_the_user_chooses_takes_the_place_of_the_usual(make):
    machine, asked = make(command="/x/q", machine="virt,gic-version=3", cpu="max")

    command = command_of(machine)
    assert asked == ("/x/q", DEVICE)
    assert follow(command, "-machine") == ["virt,gic-version=3,memory-backend=mem"]
    assert follow(command, "-cpu") == ["max"]


def test_without_an_initrd_one_is_made(make, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(qemu, "pack_root", lambda *args: asked.append(args) or b"root")
    machine, _ = make(initrd=None, modules=tmp_path, driver="d:e=1", arch="x86_64")

    command = machine.prepare(tmp_path, "balloon.sock", 192 * MEBIBYTE)

    names = ("virtio_pci", "d")
    assert asked == [(machine.options.kernel, tmp_path, names, "x86_64")]
    (initrd,) = follow(command, "-initrd")
    assert (tmp_path / initrd).read_bytes() == b"root"


@pytest.mark.parametrize(
    ("transport", "bus"),
    [
        (Transport.LEGACY, "virtio_mmio"),
        (Transport.MODERN, "virtio_mmio"),
        (Transport.PCI, "virtio_pci"),
    ],
)
def test_a_made_one_has_the_module_of_the_transport(make, monkeypatch, transport, bus):
    monkeypatch.setattr(qemu, "pack_root", lambda *args: " ".join(args[2]).encode())

    machine, _ = make(initrd=None, transport=transport)

    assert machine.root == f"{bus} virtio_balloon".encode()


def test_more_for_the_kernel_comes_last(make):
    machine, _ = make(append="loglevel=7 alloc=8")

    (line,) = follow(command_of(machine), "-append")
    assert line.endswith(" drv=none quiet loglevel=7 alloc=8")


@pytest.mark.parametrize(
    ("transport", "legacy", "device"),
    [
        (Transport.LEGACY, ["virtio-mmio.force-legacy=on"], DEVICE),
        (Transport.MODERN, ["virtio-mmio.force-legacy=off"], DEVICE),
        (Transport.PCI, [], PCI_DEVICE),
    ],
)
def test_each_transport_has_its_device(make, transport, legacy, device):
    machine, asked = make(transport=transport)

    command = command_of(machine)
    assert asked[1] == device
    assert follow(command, "-global") == legacy
    assert follow(command, "-device")[0].startswith(f"{device},chardev=balloon,")


def test_another_architecture_has_its_own_board(make):
    machine, asked = make(arch="x86_64")

    assert asked == ("qemu-system-x86_64", PCI_DEVICE)
    assert machine.board == BOARDS["x86_64"]


@pytest.mark.parametrize(
    ("driver", "module"),
    [
        ("virtio_balloon", "virtio_balloon"),
        ("pre34:endian_bug=0,trace=1", "pre34 endian_bug=0 trace=1"),
    ],
)
def test_a_driver_may_have_parameters(make, driver, module):
    machine, _ = make(driver=driver)

    assert machine.driver == module


def test_only_what_the_user_says_is_known_of_the_guest(make):
    machine, _ = make()
    assert (machine.byte_order, machine.page_size) == (None, None)

    machine, _ = make(byte_order=ByteOrder.BIG, page_size=65536)
    assert (machine.byte_order, machine.page_size) == (ByteOrder.BIG, 65536)


def test_it_has_a_name_and_uses_memory(options):
    machine = Qemu(QEMU, options, BOARDS["aarch64"])

    assert machine.title == "Image in QEMU 11.1.3"
    assert machine.use_memory(100) == ("alloc 100", "free")


@pytest.mark.parametrize("missing", ["kernel", "initrd"])
def test_a_file_that_is_missing_is_said(make, missing):
    with pytest.raises(HostError, match="/none cannot be read: No such file"):
        make(**{missing: Path("/none")})


def test_an_unknown_architecture_is_said(make):
    with pytest.raises(HostError, match=r"no machine is known for vax: .*aarch64"):
        make(arch="vax")


# --- with a guest -------------------------------------------------------------------


@pytest.fixture
def tell(require_real):
    """Tell the story of a life; give the result and the steps."""
    tools = require_real(find_tools)

    def tell_one(life, target=16 * 256):
        steps = []
        plan = Plan(life.policy, target=target, memory=192 * MEBIBYTE)
        result = boot(find_qemu(options_for(life, tools)), plan, steps.append)
        return result, [step.text for step in steps if step.kind is not Kind.WAITING]

    return tell_one


@pytest.mark.real
def test_a_kernel_of_a_distribution_as_it_is(require_real):
    machine = find_qemu(require_real(find_distribution))
    plan = Plan("evidence", target=128 * 256, memory=384 * MEBIBYTE, timeout=120)
    steps = []

    result = boot(machine, plan, steps.append)

    assert result.ending is Ending.REACHED, [step.text for step in steps]
    assert result.states[-1] == "GOOD"
    assert result.reclaimed == 128 * 256
    assert result.parked == 0
    assert result.intact
    assert result.clean
    before, filled, _ = result.held
    assert before - filled > 0.9 * 128 * MEBIBYTE


@pytest.mark.real
def test_a_kernel_with_its_driver_built_in(require_real):
    options = require_real(find_distribution)
    # Loaded first of all, as the kernel does with what is built in.
    modules = load_modules(options.modules, "virtio_balloon")
    root = initramfs.pack(root_files(find_busybox(), modules, "virtio_balloon"))
    machine = replace(find_qemu(options), root=root)
    plan = Plan("probe", target=64 * 256, memory=384 * MEBIBYTE, timeout=120)
    steps = []

    result = boot(machine, plan, steps.append)

    assert result.ending is Ending.REACHED, [step.text for step in steps]
    assert result.reclaimed == 64 * 256
    assert result.intact
    assert result.clean


@pytest.mark.real
def test_a_balloon_that_is_made_to_work(tell):
    result, texts = tell(Life("arm64be-4k", "virtio_balloon_pre34"))

    assert result.ending is Ending.REACHED
    assert result.states[-1] == "WORKING"
    assert result.parked == 0
    assert result.intact
    assert result.clean
    before, filled, _ = result.held
    assert before - filled > 0.9 * 16 * MEBIBYTE
    assert texts[0].startswith("boots arm64be-4k.Image.gz in QEMU 1")


@pytest.mark.real
def test_a_driver_that_is_held(tell):
    result, texts = tell(Life("arm64be-64k", "virtio_balloon_pre34"))

    assert result.ending is Ending.REFUSED
    assert result.reclaimed == 0
    assert result.parked == 16 * MEBIBYTE
    assert "is left without 16 MiB: its driver has them" in texts
    assert result.intact
    assert result.clean


@pytest.mark.real
def test_a_kernel_that_oopses(tell):
    result, texts = tell(Life("arm64be-64k", "virtio_balloon_pre34", "probe"))

    assert result.ending is Ending.FAILED
    assert result.reason.startswith("the guest's kernel oopsed: Unable to handle")
    assert texts[-1] == result.reason


@pytest.mark.real
def test_a_balloon_that_does_not_stop(tell):
    result, _ = tell(Life("arm64be-4k", "virtio_balloon_pre34", "none"))

    assert result.ending is Ending.FAILED
    assert result.reason.startswith("the driver was asked for 16 MiB and did not stop")
