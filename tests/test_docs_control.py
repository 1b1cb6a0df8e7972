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
STATUS = ["id", "policy", "requested", "actual", "reclaimed", "ram", "verdict", "stats"]
EVENTS = {"BALLOON_CHANGE", "BALLOON_VERDICT", "BALLOON_FAULT"}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def conversation():
    """Return what happens on the page: (C, S or G, a message), in order."""
    said = [block for block in blocks("text") if re.match("[CGS]: ", block)]
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

    def hear(self, who, what):
        """Return what the client reads after a command, or a fault of the guest."""
        heard = []
        if who == "C":
            heard.append(self.monitor.receive(what.encode()))
        else:
            self.device.set_features(self.device.query().features | 1 << 20)
        self.guest.run()
        self.device.tick()
        self.guest.run()
        told = self.news.look(self.device.query(), 0.0)
        return heard + [event_line(name, data, NOW) for name, data in told]


@pytest.fixture
def talk():
    talk = Talk()
    yield talk
    talk.host.close()


def test_the_conversation_is_as_it_is_shown(talk):
    heard = [talk.monitor.greeting()]
    for who, what in conversation():
        if who != "S":
            heard += talk.hear(who, what)

    shown = [json.loads(what) for who, what in conversation() if who == "S"]
    assert [message_of(line) for line in heard] == [
        message_of(json.dumps(message)) for message in shown
    ]


def message_of(line):
    """Return a message; of a status what the page names, for there may be more."""
    message = json.loads(line)
    if "gate" in message.get("return", ()):
        message["return"] = {name: message["return"][name] for name in STATUS}
    return message


def test_every_command_and_event_is_shown():
    said = [json.loads(what) for who, what in conversation() if who != "G"]

    assert {*COMMANDS, "qmp_capabilities"} <= {each.get("execute") for each in said}
    assert {each.get("event") for each in said} >= EVENTS


def test_every_command_is_told_of():
    told = set(re.findall(r"^\| `([\w-]+)` \|", PAGE, re.MULTILINE))

    assert {*COMMANDS, "qmp_capabilities"} <= told


def test_every_event_is_told_of():
    told = set(re.findall(r"^\| `(BALLOON_\w+)` \|", PAGE, re.MULTILINE))

    assert told == EVENTS


def test_what_people_see_is_what_is_shown(talk, capsys):
    for who, what in conversation():
        if who != "S":
            talk.hear(who, what)
    status = json.loads(talk.monitor.receive(b'{"execute": "query-balloon-status"}'))

    show.line("vm1")
    show.facts(report.status_lines(status["return"]))

    assert capsys.readouterr().out in blocks("text")
