from __future__ import annotations

import pytest

from balloon_plugin.boot.emulator import DEVICE, PCI_DEVICE, find_emulator
from balloon_plugin.errors import HostError

NEW = "QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)"
BOTH = (DEVICE, PCI_DEVICE)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a program on the PATH that answers as a QEMU would."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def install_one(version=NEW, devices=BOTH, name="qemu-system-test", status=0):
        lines = "".join(f"echo 'name \"{device}\", bus PCI'\n" for device in devices)
        script = (
            f'#!/bin/sh\n[ "$1" = extra ] && shift\n'
            f'case "$*" in\n-version) echo "{version}" ;;\n'
            f'"-machine none -device help")\n{lines};;\n*) exit 9 ;;\nesac\n'
            f"exit {status}\n"
        )
        path = tmp_path / name
        path.write_text(script)
        path.chmod(0o755)
        return path

    return install_one


def test_a_new_one_is_found_by_its_name(install):
    path = install()

    found = find_emulator("qemu-system-test", DEVICE)
    assert found.command == (str(path),)
    assert found.version == "11.1.3"


def test_a_command_may_have_arguments(install):
    path = install(name="with space")

    found = find_emulator(f"'{path}' extra", PCI_DEVICE)
    assert found.command == (str(path), "extra")


def test_a_path_may_be_relative(install, monkeypatch):
    path = install()
    monkeypatch.chdir(path.parent)

    assert find_emulator(f"./{path.name}", DEVICE).command == (str(path),)


@pytest.mark.parametrize("version", ["10.1.0", "10.2.50", "12.0.0"])
def test_the_oldest_is_10_1(install, version):
    install(f"QEMU emulator version {version}")

    assert find_emulator("qemu-system-test", DEVICE).version == version


@pytest.mark.parametrize("version", ["7.2.22 (Debian)", "10.0.99", "9.2.0"])
def test_an_older_one_is_said(install, version):
    install(f"QEMU emulator version {version}")

    with pytest.raises(HostError, match=r"is QEMU \d+\.\d+\.\d+.*10\.1 or later"):
        find_emulator("qemu-system-test", DEVICE)


def test_one_without_the_device_is_said(install):
    install(devices=[DEVICE])

    with pytest.raises(HostError, match=f"11.1.3.* was built without {PCI_DEVICE}"):
        find_emulator("qemu-system-test", PCI_DEVICE)


def test_none_is_said_with_what_to_install():
    with pytest.raises(
        HostError, match=r"no-such-qemu is not on .* install QEMU 10\.1"
    ):
        find_emulator("no-such-qemu", DEVICE)


def test_something_else_is_said(install):
    install("GNU bash, version 5.2")

    with pytest.raises(HostError, match="does not say which QEMU it is"):
        find_emulator("qemu-system-test", DEVICE)


def test_one_that_does_not_work_is_said(install):
    install(status=1)

    with pytest.raises(HostError, match=r"qemu-system-test does not work \(.*status 1"):
        find_emulator("qemu-system-test", DEVICE)


@pytest.mark.parametrize("command", ["", "'", "   "])
def test_nonsense_is_said(command):
    with pytest.raises(HostError, match="is not the name of a program"):
        find_emulator(command, DEVICE)
