"""What QEMU itself answers, beside what is answered here."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from control_kit import monitor_of, said
from fakes import ScriptedPolicy, follow, rig
from real_guests import qemu_command

from balloon_plugin.errors import HostError

pytestmark = pytest.mark.real

PATH = "/machine/peripheral/a"
INTERVAL = {"path": PATH, "property": "guest-stats-polling-interval"}
SAME = [
    said("query-balloon"),
    said("qmp_capabilities"),
    said("qmp_capabilities"),
    said("query-version"),
    said("balloon", value=1 << 20),
    said("balloon"),
    said("balloon", value="much"),
    said("balloon", value=-1),
    said("balloon", value=1 << 20, colour="red"),
    said("stop-it"),
    said("qom-get", **INTERVAL),
    said("qom-set", **INTERVAL, value=2),
    said("qom-get", **INTERVAL),
    said("qom-set", **INTERVAL, value=-1),
    said("qom-set", **INTERVAL, value=1 << 32),
    said("qom-set", **INTERVAL, value="2"),
    said("qom-set", path=PATH, property="guest-stats", value=2),
    said("qom-get", path=PATH, property="guest-stats"),
    said("qom-get", path=PATH, property="colour"),
    said("qom-get", path="/machine/peripheral/b", property="guest-stats"),
    b'{"execute": "query-version", "id": [1, "a"]}\n',
    b'{"execute": "query-version", "arguments": []}\n',
    b'{"exec": "query-version"}\n',
    b"[]\n",
    b"x\n",
]


def qemu():
    """Find QEMU."""
    found = shutil.which(qemu_command())
    if found is None:
        raise HostError(f"{qemu_command()} is not there: tests/guests/get-qemu.sh")
    return found


def shape(answer):
    """Return what a client depends on: the class of an error, the names of members."""
    if "error" in answer:
        return answer["error"]["class"], answer.get("id")
    value = answer["return"]
    keys = sorted(value) if isinstance(value, dict) else value
    return keys, answer.get("id")


def test_clients_of_qemu_find_what_they_know(require_real):
    done = subprocess.run(  # noqa: S603 - the program that is to be compared with
        [
            *(require_real(qemu), "-M", "virt", "-cpu", "cortex-a53", "-m", "64", "-S"),
            *("-display", "none", "-nodefaults", "-qmp", "stdio"),
            *("-device", "virtio-balloon-pci,id=a"),
        ],
        input=b"".join(SAME) + said("quit"),
        capture_output=True,
        timeout=60,
        check=True,
    )
    greeting, *answers = map(json.loads, done.stdout.splitlines())
    answers = [answer for answer in answers if "event" not in answer]

    monitor = monitor_of(rig(ScriptedPolicy(follow)).device, ready=False)
    ours = [json.loads(monitor.receive(message)) for message in SAME]

    assert json.loads(monitor.greeting())["QMP"].keys() == greeting["QMP"].keys()
    compared = list(zip(SAME, answers, ours, strict=False))
    different = [
        (message, theirs, mine)
        for message, theirs, mine in compared
        if shape(theirs) != shape(mine)
    ]
    assert len(compared) == len(SAME)
    # QEMU answers nothing there; ours says whether the target has to wait (rule 9).
    assert [message for message, _, _ in different] == [said("balloon", value=1 << 20)]
