"""What an import of the package brings with it, and what it must not."""

from __future__ import annotations

import subprocess
import sys

import pytest

BARRED = [
    "asyncio",
    "email",
    "importlib.metadata",
    "logging",
    "mmap",
    "rich",
    "selectors",
    "socket",
    "subprocess",
    "threading",
    "balloon_plugin.boot",
    "balloon_plugin.cli",
    "balloon_plugin.compare",
    "balloon_plugin.control",
    "balloon_plugin.guests",
    "balloon_plugin.hosts",
    "balloon_plugin.policies",
]


@pytest.fixture(scope="module")
def imported():
    # Alone: what pytest or a .pth file imported is not of our doing.
    program = (
        "import sys; before = set(sys.modules); import balloon_plugin;"
        "print(*set(sys.modules) - before)"
    )
    told = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return told.stdout.split()


# From 3.14 on, ctypes brings it, which cstruct asks for.
if sys.version_info >= (3, 14):
    BARRED.remove("threading")


@pytest.mark.parametrize("module", BARRED)
def test_an_import_of_the_package_does_without(imported, module):
    assert module not in imported


def test_an_import_of_the_package_brings_the_device(imported):
    assert "balloon_plugin.device" in imported
