from __future__ import annotations

import gzip
import shutil
import stat
import subprocess

import pytest

from balloon_plugin.boot import initramfs
from balloon_plugin.boot.init import root_files
from balloon_plugin.boot.modules import Module

FIELDS = (
    *("ino", "mode", "uid", "gid", "nlink", "mtime", "filesize"),
    *("devmajor", "devminor", "rdevmajor", "rdevminor", "namesize", "check"),
)


def read_newc(archive):
    """Yield (name, header, data) as the kernel's init/initramfs.c walks an archive."""
    position = 0
    while True:
        assert archive[position : position + 6] == b"070701"
        numbers = archive[position + 6 : position + 110]
        header = {
            field: int(numbers[8 * i : 8 * i + 8], 16) for i, field in enumerate(FIELDS)
        }
        name_at = position + 110
        name = archive[name_at : name_at + header["namesize"] - 1].decode()
        assert archive[name_at + header["namesize"] - 1] == 0
        data_at = -(-(name_at + header["namesize"]) // 4) * 4
        data = archive[data_at : data_at + header["filesize"]]
        position = -(-(data_at + header["filesize"]) // 4) * 4
        if name == "TRAILER!!!":
            assert not archive[position:].strip(b"\0")
            return
        yield name, header, data


def unpack(packed):
    return list(read_newc(gzip.decompress(packed)))


def test_a_file_keeps_its_name_mode_and_content():
    packed = initramfs.pack([initramfs.file("init", b"#!/bin/sh\n", executable=True)])

    [(name, header, data)] = unpack(packed)
    assert (name, data) == ("init", b"#!/bin/sh\n")
    assert header["mode"] == stat.S_IFREG | 0o755


def test_everything_belongs_to_root():
    [(_, header, _)] = unpack(initramfs.pack([initramfs.file("a", b"")]))

    assert (header["uid"], header["gid"]) == (0, 0)


def test_the_console_is_character_device_5_1_in_a_folder_of_its_own():
    entries = unpack(initramfs.pack([initramfs.console()]))

    (parent, folder, _), (name, node, _) = entries
    assert (parent, name) == ("dev", "dev/console")
    assert folder["mode"] == stat.S_IFDIR | 0o755
    assert node["mode"] == stat.S_IFCHR | 0o600
    assert (node["rdevmajor"], node["rdevminor"]) == (5, 1)


def test_folders_come_once_and_before_what_is_in_them():
    files = [initramfs.file("a/b/c", b"1"), initramfs.file("a/b/d", b"2")]

    names = [name for name, _, _ in unpack(initramfs.pack(files))]
    assert names == ["a", "a/b", "a/b/c", "a/b/d"]


@pytest.mark.parametrize("size", range(9))
def test_parts_of_any_length_are_aligned(size):
    name = "n" * (size + 1)

    [(read_name, _, data)] = unpack(initramfs.pack([initramfs.file(name, b"x" * size)]))
    assert (read_name, data) == (name, b"x" * size)


def test_inode_numbers_differ():
    files = [initramfs.file(name, b"") for name in "abc"]

    inodes = {header["ino"] for _, header, _ in unpack(initramfs.pack(files))}
    assert len(inodes) == 3


def test_the_same_entries_give_the_same_bytes():
    files = root_files(b"busybox", [Module("virtio_balloon", b"driver")])

    assert initramfs.pack(files) == initramfs.pack(files)


def test_the_root_holds_what_a_guest_needs():
    modules = [Module("virtio", b"bus"), Module("virtio_balloon", b"driver")]
    content = {
        name: (header["mode"], data)
        for name, header, data in unpack(
            initramfs.pack(root_files(b"the tools", modules))
        )
    }

    assert content["init"][1].startswith(b"#!/bin/busybox sh\n")
    assert content["bin/busybox"] == (stat.S_IFREG | 0o755, b"the tools")
    assert content["modules/virtio_balloon.ko"][1] == b"driver"
    assert {"dev/console", "memory", "proc", "sys"} <= content.keys()


def test_all_modules_but_the_driver_are_loaded_at_boot():
    modules = [Module("virtio", b""), Module("virtio_ring", b""), Module("driver", b"")]

    entries = {entry.name: entry.data for entry in root_files(b"", modules)}
    assert entries["modules/order"] == b"virtio\nvirtio_ring\n"


def test_a_driver_that_is_built_in_needs_no_modules():
    entries = {entry.name: entry.data for entry in root_files(b"", [], "driver")}

    assert entries["modules/order"] == b""
    assert entries["modules/built-in"] == b"driver\n"


def test_all_modules_are_loaded_at_boot_if_none_is_the_driver():
    modules = [Module("virtio", b""), Module("virtio_ring", b"")]

    entries = {entry.name: entry.data for entry in root_files(b"", modules, "driver")}
    assert entries["modules/order"] == b"virtio\nvirtio_ring\n"


def test_busybox_lists_what_was_packed():
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not on this machine: apt install busybox-static")
    files = root_files(b"the tools", [Module("virtio_balloon", b"driver")])

    listed = subprocess.run(  # noqa: S603 - our own archive
        [busybox, "cpio", "-t"],
        input=gzip.decompress(initramfs.pack(files)),
        capture_output=True,
        check=True,
    )
    names = listed.stdout.decode().split()
    assert [entry.name for entry in files if entry.name not in names] == []


def test_the_shell_understands_the_init_script(tmp_path):
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not on this machine: apt install busybox-static")
    script = tmp_path / "init"
    script.write_bytes(
        next(entry.data for entry in root_files(b"", []) if entry.name == "init")
    )

    subprocess.run([busybox, "sh", "-n", script], check=True)  # noqa: S603 - our own script
