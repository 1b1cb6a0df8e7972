"""What a guest needs of this machine is found, or it is said what to install."""

from __future__ import annotations

import sys

import pytest

from balloon_plugin.boot.programs import find_busybox, find_program
from balloon_plugin.errors import HostError


@pytest.fixture
def bin_folder(tmp_path, monkeypatch):
    """A PATH with nothing on it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(path, content):
    path.write_bytes(content)
    path.chmod(0o755)


def elf(*kinds):
    """Return a 64-bit ELF header with program headers of these kinds and no more."""
    order = sys.byteorder
    header = bytearray(64)
    header[:5] = b"\x7fELF\x02"
    header[0x20:0x28] = (64).to_bytes(8, order)
    header[0x36:0x38] = (56).to_bytes(2, order)
    header[0x38:0x3A] = len(kinds).to_bytes(2, order)
    return bytes(header) + b"".join(
        kind.to_bytes(4, order) + bytes(52) for kind in kinds
    )


PT_LOAD, PT_INTERP = 1, 3


def test_busybox_is_read(bin_folder):
    install(bin_folder / "busybox", elf(PT_LOAD))

    assert find_busybox() == elf(PT_LOAD)


@pytest.mark.usefixtures("bin_folder")
def test_without_a_program_one_is_told_what_to_install():
    with pytest.raises(HostError, match=r"linux\.uml .* apt install user-mode-linux"):
        find_program("linux.uml", "user-mode-linux")


@pytest.mark.usefixtures("bin_folder")
def test_without_busybox_one_is_told_what_to_install():
    with pytest.raises(HostError, match=r"busybox .* apt install busybox-static"):
        find_busybox()


def test_a_busybox_that_needs_libraries_is_not_enough(bin_folder):
    install(bin_folder / "busybox", elf(PT_LOAD, PT_INTERP))

    with pytest.raises(HostError, match=r"libraries .* apt install busybox-static"):
        find_busybox()
