"""The clients that QEMU's own people use."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys

import pytest
from control_kit import RAM, Served
from qemu.qmp import EventListener, ExecuteError, QMPClient


@pytest.fixture
def path(tmp_path):
    return tmp_path / "control.sock"


@pytest.fixture
def served(path):
    with Served(path) as served:
        yield served


def test_the_qmp_client_of_qemu_is_understood(served, path):
    async def talk():
        client = QMPClient("test")
        await client.connect(os.fspath(path))
        try:
            await client.execute("balloon", {"value": RAM - 16 * 4096})
            served.write_actual(16)
            with pytest.raises(ExecuteError, match="there is no command 'stop'"):
                await client.execute("stop")
            return await client.execute("query-balloon")
        finally:
            await client.disconnect()

    answer = asyncio.run(talk())

    assert answer == {"actual": RAM - 16 * 4096}
    assert served.guests["a"].target() == 16


def test_the_qmp_client_of_qemu_hears_events(served, path):
    async def talk():
        client = QMPClient("test")
        heard = EventListener()
        client.register_listener(heard)
        await client.connect(os.fspath(path))
        try:
            await client.execute("balloon", {"value": RAM - 16 * 4096})
            served.write_actual(16)
            return await asyncio.wait_for(heard.get(), 10)
        finally:
            await client.disconnect()

    event = asyncio.run(talk())

    assert event["event"] == "BALLOON_CHANGE"
    assert event["data"]["actual"] == RAM - 16 * 4096
    assert event["timestamp"].keys() == {"seconds", "microseconds"}


def test_the_shell_of_qemu_is_understood(path):
    """Its input is a terminal's, as people use it."""
    with Served(path, "vm1", "vm2"):
        primary, secondary = pty.openpty()
        with subprocess.Popen(  # noqa: S603 - the shell that is to be understood
            [sys.executable, "-m", "qemu.qmp.qmp_shell", os.fspath(path)],
            stdin=secondary,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "HOME": str(path.parent)},  # it keeps a history there
        ) as shell:
            os.write(primary, b"balloon value=1048576 id=vm2\n")
            os.write(primary, b"x-inhibit id=vm1 reason=null\n")
            os.write(primary, b"query-balloon id=vm3\n")
            os.write(primary, b"\x04")
            out, _ = shell.communicate(timeout=30)
        os.close(primary)
        os.close(secondary)

    assert "Connected to QEMU 0.1.0" in out
    assert '{"return": {"answer": "accepted", "reason": "", "requested": 3840}}' in out
    assert '{"return": {}}' in out
    assert '"class": "DeviceNotFound"' in out
    assert "Traceback" not in out
