"""A distribution's kernel gets a root file system, or it is said what is missing."""

from __future__ import annotations

import gzip
import platform
from pathlib import Path

import pytest

from balloon_plugin.boot import distribution
from balloon_plugin.boot.distribution import pack_root
from balloon_plugin.errors import HostError

HERE = platform.machine()
NAMES = ("virtio_pci", "virtio_balloon")
KERNEL = Path("/boot/vmlinuz-6.12.0")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The modules of the kernel."""
    monkeypatch.setattr(distribution, "MODULES", tmp_path)
    monkeypatch.setattr(distribution, "find_busybox", lambda: b"all the tools")
    folder = tmp_path / "6.12.0"
    folder.mkdir()
    (folder / "modules.builtin").write_text("kernel/virtio_mmio.ko\n")
    (folder / "modules.dep").write_text(
        "virtio.ko:\nvirtio_pci.ko: virtio.ko\nvirtio_balloon.ko: virtio.ko\n"
    )
    for name in ("virtio", *NAMES):
        (folder / f"{name}.ko").write_bytes(f"code of {name}".encode())
    return folder


def unpacked(*arguments):
    return gzip.decompress(pack_root(*arguments))


def at_boot(root):
    """Return which modules the init of a root file system loads by itself."""
    return [name for name in ("virtio", *NAMES) if f"{name}\n".encode() in root]


def test_the_modules_are_found_by_the_name_of_the_kernel(folder):
    root = unpacked(KERNEL, None, NAMES, HERE)

    assert b"all the tools" in root
    assert all(f"code of {name}".encode() in root for name in ("virtio", *NAMES))
    assert at_boot(root) == ["virtio", "virtio_pci"]
    assert root == unpacked(Path("bzImage"), folder, NAMES, HERE)


@pytest.mark.usefixtures("folder")
def test_what_is_built_in_needs_no_module():
    root = unpacked(KERNEL, None, ("virtio_mmio", "virtio_balloon"), HERE)

    assert at_boot(root) == ["virtio"]
    assert b"code of virtio_pci" not in root


def test_a_driver_that_is_built_in_is_named_and_needs_no_module(folder):
    (folder / "modules.builtin").write_text("kernel/virtio_balloon.ko\n")

    root = unpacked(KERNEL, None, NAMES, HERE)

    assert b"code of virtio_balloon" not in root
    assert b"virtio\nvirtio_pci\n" in root
    assert b"virtio_balloon\n" in root


def test_a_kernel_whose_name_does_not_tell_is_asked_for_its_modules():
    with pytest.raises(HostError, match=r"bzImage does not say .* --modules"):
        pack_root(Path("bzImage"), None, NAMES, HERE)


@pytest.mark.usefixtures("folder")
def test_a_kernel_whose_modules_are_not_here_is_said():
    with pytest.raises(HostError, match="install the modules of this kernel"):
        pack_root(Path("vmlinuz-7.0.0"), None, NAMES, HERE)


def test_the_programs_of_this_machine_run_on_no_other():
    with pytest.raises(HostError, match=r"a guest of vax cannot run .* --initrd"):
        pack_root(KERNEL, None, NAMES, "vax")
