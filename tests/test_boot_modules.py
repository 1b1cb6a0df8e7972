from __future__ import annotations

import gzip
import lzma
import sys

import pytest

from balloon_plugin.boot.modules import Module, load_modules
from balloon_plugin.errors import HostError
from balloon_plugin.zstd import NAME, find_zstd

DEPENDENCIES = """\
drivers/virtio.ko:
drivers/virtio_ring.ko: drivers/virtio.ko
drivers/virtio-balloon.ko: drivers/virtio_ring.ko drivers/virtio.ko
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "drivers").mkdir()
    (tmp_path / "modules.builtin").write_text("kernel/drivers/virtio/virtio_mmio.ko\n")
    (tmp_path / "modules.dep").write_text(DEPENDENCIES)
    for name in ("virtio", "virtio_ring", "virtio-balloon"):
        (tmp_path / f"drivers/{name}.ko").write_bytes(name.encode())
    return tmp_path


def test_a_module_comes_after_all_that_it_needs(folder):
    assert load_modules(folder, "virtio_balloon") == [
        Module("virtio", b"virtio"),
        Module("virtio_ring", b"virtio_ring"),
        Module("virtio_balloon", b"virtio-balloon"),
    ]


def test_a_module_that_is_built_in_needs_no_loading(folder):
    assert load_modules(folder, "virtio_mmio") == []


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        (".gz", gzip.compress),
        (".xz", lzma.compress),
        (".zst", find_zstd().compress),
    ],
)
def test_compressed_modules_are_unpacked(folder, suffix, compress):
    (folder / "modules.dep").write_text(f"drivers/virtio.ko{suffix}:\n")
    (folder / f"drivers/virtio.ko{suffix}").write_bytes(compress(b"code"))

    assert load_modules(folder, "virtio") == [Module("virtio", b"code")]


def test_an_unknown_compression_is_said(folder):
    (folder / "modules.dep").write_text("drivers/virtio.ko.lz5:\n")

    with pytest.raises(HostError, match=r"virtio\.ko\.lz5 .* run depmod"):
        load_modules(folder, "virtio")


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_a_damaged_module_is_said(folder, suffix):
    (folder / "modules.dep").write_text(f"drivers/virtio.ko{suffix}:\n")
    (folder / f"drivers/virtio.ko{suffix}").write_bytes(b"no archive at all")

    with pytest.raises(HostError, match=rf"virtio\.ko\{suffix} cannot be read"):
        load_modules(folder, "virtio")


def test_without_the_package_for_it_one_is_told_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, NAME, None)
    (folder / "modules.dep").write_text("drivers/virtio.ko.zst:\n")
    (folder / "drivers/virtio.ko.zst").write_bytes(b"")

    with pytest.raises(HostError, match=r"pip install 'balloon-plugin\[trace\]'"):
        load_modules(folder, "virtio")


def test_a_module_that_is_not_there_is_said(folder):
    with pytest.raises(HostError, match="has no module virtio_net"):
        load_modules(folder, "virtio_net")


def test_a_kernel_without_modules_is_said(tmp_path):
    with pytest.raises(HostError, match="install the modules of this kernel"):
        load_modules(tmp_path / "6.1.0", "virtio_balloon")
