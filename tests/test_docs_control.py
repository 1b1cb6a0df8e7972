"""The page on the control socket: its conversation is held, word for word."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from balloon_plugin import change_policy, make_device, show
from balloon_plugin.control import report
from balloon_plugin.control.commands import COMMANDS
from balloon_plugin.control.events import News, event_line
from balloon_plugin.control.monitor import Monitor
from balloon_plugin.control.site import Site
from balloon_plugin.guests import Guest, find
from balloon_plugin.hosts.simulated import SimulatedHost

PAGE = (Path(__file__).parents[1] / "docs/control.md").read_text()
NOW = 1795696200.25


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def conversation():
    """Return what is said on the page: (C or S, a message), in order."""
    said = [block for block in blocks("text") if re.match("[CS]: ", block)]
    unfolded = re.sub(r"\n +", " ", "".join(said))
    return [(line[0], line[3:]) for line in unfolded.splitlines()]


class Talk:
    """One client of a device with a good guest, which acts after each command."""

    def __init__(self):
        self.device = make_device("probe")
        self.host = SimulatedHost(self.device)
        self.guest = Guest(find("linux-6.12-le-4k"), self.host)
        self.guest.run()
        site = Site({"vm1": self.device}, "0.1.0", self.change_policy, lambda: NOW)
        self.monitor = Monitor(site, lambda function: function())
        self.news = News("vm1", self.device.query())

    def change_policy(self, _name, policy):
        change_policy(self.device, policy)

    def say(self, command):
        """Return the answer to a command, and the events after it."""
        answer = self.monitor.receive(command.encode())
        self.guest.run()
        self.device.tick()
        self.guest.run()
        told = self.news.look(self.device.query(), 0.0)
        return [answer, *(event_line(name, data, NOW) for name, data in told)]


@pytest.fixture
def talk():
    talk = Talk()
    yield talk
    talk.host.close()


def test_the_conversation_is_as_it_is_shown(talk):
    said = [("S", talk.monitor.greeting())]
    for who, command in conversation():
        if who == "C":
            said.append(("C", command))
            said.extend(("S", line) for line in talk.say(command))

    assert [(who, json.loads(text)) for who, text in said] == [
        (who, json.loads(text)) for who, text in conversation()
    ]


def test_every_command_is_told_of():
    told = set(re.findall(r"^\| `([\w-]+)` \|", PAGE, re.MULTILINE))

    assert {*COMMANDS, "qmp_capabilities"} <= told


def test_every_event_is_told_of():
    told = set(re.findall(r"^\| `(BALLOON_\w+)` \|", PAGE, re.MULTILINE))

    assert told == {"BALLOON_CHANGE", "BALLOON_VERDICT", "BALLOON_FAULT"}


def test_what_people_see_is_what_is_shown(talk, capsys):
    for who, command in conversation():
        if who == "C":
            talk.say(command)
    status = json.loads(talk.monitor.receive(b'{"execute": "query-balloon-status"}'))

    show.line("vm1")
    show.facts(report.status_lines(status["return"]))

    assert capsys.readouterr().out in blocks("text")
