"""``serve`` with a recorder, shadows and policies by lot, as its users meet it."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest
from command_line import Guest, command, names_in, until

from balloon_plugin import cli
from balloon_plugin.events import DriverReady, ShadowDiverged
from balloon_plugin.replay import conclude, replay
from balloon_plugin.split import Split
from balloon_plugin.trace import Concluded, decode, read


class Serving:
    """A daemon in a process of its own, in the folder that one is in."""

    def __init__(self, *words):
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            command("serve", *words), stdout=subprocess.PIPE, text=True
        )
        self.lines = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()

    def until(self, text):
        """Return the first line with a text in it."""
        for line in self._process.stdout:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"no {text!r} in {self.lines}")

    def end(self):
        self._process.send_signal(signal.SIGTERM)
        self.lines += self._process.stdout
        assert self._process.wait() == 0


def ask(capsys, *words):
    assert cli.main(["ctl", "c", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
def test_a_guest_is_recorded_and_watched(folder, capsys):
    words = ("--socket", "a", "--control", "c", "--policy", "probe")
    with Serving(*words, "--record", "night.jsonl", "--shadow", "none") as serving:
        serving.until("waiting for a front end")
        guest = Guest("a")
        try:
            serving.until("a: shadow none, from event 1 on: would show 0")
            (shadow,) = json.loads(ask(capsys, "query", "--json"))["shadows"]
            shown = ask(capsys, "query")
        finally:
            guest.socket.close()
        serving.end()

    assert (shadow["policy"], shadow["dropped"]) == ("none", "")
    assert "shadow" in shown
    assert "acts otherwise from event 1 on" in shown
    header, moments = decode(read(folder / "night.jsonl"))
    entries = [moment.entry for moment in moments]
    assert (header.policy, header.guest, header.split) == ("probe", "a", "")
    assert {DriverReady, ShadowDiverged} <= {type(entry) for entry in entries}
    assert isinstance(entries[-1], Concluded)


@pytest.mark.slow
def test_who_is_killed_leaves_a_trace_that_can_be_replayed(folder):
    with Serving("--socket", "a", "--record", "night.jsonl") as serving:
        serving.until("waiting for a front end")
        guest = Guest("a")
        until(lambda: b'"ready"' in (folder / "night.jsonl").read_bytes())
    guest.socket.close()

    result = conclude(*replayed(folder / "night.jsonl"))

    assert result.faithful
    assert len(result.sessions) == 1


def replayed(path):
    header, moments = decode(read(path))
    return header, replay(header, moments)


@pytest.mark.slow
def test_each_of_several_guests_has_a_trace_of_its_own_and_its_policy_by_lot(
    folder, capsys
):
    split = ("--policy-split", "none=1,probe=1", "--salt", "S")
    names = [f"vm{number}" for number in range(4)]
    sockets = [word for name in names for word in ("--socket", f"{name}=s-{name}")]
    with Serving(*sockets, *split, "--record", "x.jsonl", "--control", "c") as serving:
        lines = [serving.until("waiting for a front end") for _ in names]
        status = [json.loads(ask(capsys, "query", name, "--json")) for name in names]
        shown = ask(capsys, "query", names[0])
        serving.end()

    policies = [each["policy"] for each in status]
    lot = Split.parse("none=1,probe=1", "S")
    assert policies == [lot.choose(name) for name in names]
    assert set(policies) == {"none", "probe"}
    assert all(f"(policy {p})" in line for p, line in zip(policies, lines, strict=True))
    assert status[0]["split"] == {"shares": "none=1,probe=1", "salt": "S"}
    assert "by none=1,probe=1, salt 'S'" in shown
    assert names_in(folder) == [f"x.{name}.jsonl" for name in names]
    headers = [decode(read(folder / f"x.{name}.jsonl"))[0] for name in names]
    assert [header.policy for header in headers] == policies
    assert {(header.split, header.salt) for header in headers} == {
        ("none=1,probe=1", "S")
    }


NAMELESS = (
    "--policy-split chooses by the guest's name, and a is merely that of its socket: "
    "give it one of its own, --socket NAME=a"
)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--shadow prob", "there is no policy 'prob'; did you mean probe?"),
        ("--policy-split probe", "'probe' divides no fleet: write POLICY=SHARE"),
        (
            "--policy-split probe=1",
            NAMELESS,
        ),
        ("--policy-split probe=1 --policy none", "argument --policy: not allowed with"),
        ("--record no/x", "the trace no/x cannot be written: No such file"),
    ],
)
@pytest.mark.usefixtures("signals")
def test_what_cannot_be_done_is_said_in_a_sentence(refused, folder, words, sentence):
    assert sentence in refused("serve", "--socket", "a", *words.split())

    assert names_in(folder) == []


@pytest.mark.usefixtures("signals", "folder")
def test_a_policy_in_the_split_that_does_not_exist_is_refused(refused):
    words = ("serve", "--socket", "vm=a", "--policy-split", "prob=0,probe=1")

    assert "there is no policy 'prob'" in refused(*words)
