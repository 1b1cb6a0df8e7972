"""A real kernel under the control socket alone: targets, statistics, other policies."""

from __future__ import annotations

import time
from contextlib import closing
from types import SimpleNamespace

import pytest
from control_kit import Client as RawClient

from balloon_plugin.boot.plan import Plan
from balloon_plugin.boot.stage import Stage
from balloon_plugin.boot.talk import Talk
from balloon_plugin.boot.uml import find_uml
from balloon_plugin.control import Client, ControlServer

pytestmark = [pytest.mark.real, pytest.mark.slow]

MEBIBYTE = 1 << 20
MEMORY = 192
"""MiB of RAM."""

KEPT = 32
"""MiB that the guest writes before its driver comes, and has to find again."""

TARGET = 48 * MEBIBYTE // 4096
"""Pages for the balloon."""

INTERVAL = {"path": "vm1", "property": "guest-stats-polling-interval"}


class _Life:
    """One guest's life, told by what is said through the control socket."""

    def __init__(self, talk, client):
        self._talk = talk
        self._client = client

    def live(self):
        talk, seen = self._talk, SimpleNamespace()
        talk.wait(lambda: talk.view.booted, "not booted")
        talk.ask(f"alloc {KEPT}")
        talk.send(f"insmod {find_uml().driver}")
        seen.first = self._until(lambda status: status["accepted"])
        self._fill(TARGET)
        seen.statistics = self._statistics()
        seen.in_use = self._policy("probe")
        seen.taken_over = self._policy("none")
        self._fill(0)
        seen.at_rest = self._policy("probe")
        seen.tested = self._until(lambda status: status["verdict"]["state"] == "GOOD")
        seen.last = self._fill(TARGET)
        seen.report = talk.ask("device")
        return seen

    def _status(self):
        return self._client.execute("query-balloon-status")

    def _policy(self, name):
        return self._client.execute("x-set-policy", policy=name)["state"]

    def _until(self, reached):
        """Wait until a query shows something; return the query."""
        found = []

        def look():
            status = self._status()
            if reached(status):
                found.append(status)
            return bool(found)

        self._talk.wait(look, "it is not to be seen")
        return found[0]

    def _fill(self, pages):
        value = (self._status()["ram"] - pages) * 4096
        self._client.execute("balloon", value=value)
        return self._until(lambda status: status["actual"] == pages)

    def _statistics(self):
        self._client.execute("qom-set", **INTERVAL, value=1)
        self._until(lambda status: status["stats"] and status["stats"]["age"] < 1)
        return self._client.execute("qom-get", path="vm1", property="guest-stats")


@pytest.fixture(scope="module")
def lived(require_real, tmp_path_factory):
    """Give what was seen in a life, and the events that a client heard."""
    path = tmp_path_factory.mktemp("control") / "c"
    plan = Plan("evidence", target=1, memory=MEMORY * MEBIBYTE, timeout=60.0)
    with Stage(require_real(find_uml), plan) as stage:
        guests = {"vm1": stage.with_device(lambda device: device)}
        with (
            ControlServer(path, guests, stage._daemon.call),
            closing(RawClient(path, ready=True)) as listener,
            Client(path) as client,
        ):
            talk = Talk(stage, plan, lambda _: None, time.monotonic())
            seen = _Life(talk, client).live()
            seen.told = _hear_until_the_end(listener, seen.last)
    return seen


def _hear_until_the_end(listener, last):
    """Return the data of each event until all that a query shows was told."""
    told = {}
    end = {"id": "vm1", "actual": (last["ram"] - last["actual"]) * 4096}
    while (told.get("BALLOON_CHANGE"), told.get("policy")) != (end, "probe GOOD"):
        event = listener.hear()
        told[event["event"]] = event["data"]
        if event["event"] == "BALLOON_VERDICT":
            told["policy"] = f"{event['data']['policy']} {event['data']['state']}"
    return told


def test_its_statistics_are_read_as_libvirt_reads_them(lived):
    stats = lived.statistics["stats"]

    assert 0 < stats["stat-free-memory"] < stats["stat-total-memory"] < 2**63
    assert abs(lived.statistics["last-update"] - time.time()) < 3600


def test_a_policy_that_comes_while_the_balloon_is_in_use_does_not_test(lived):
    assert (lived.in_use, lived.taken_over) == ("NOT_SEEN", "BELIEVED")


def test_a_policy_that_comes_while_it_rests_tests_and_believes(lived):
    assert lived.at_rest == "TESTING"
    assert lived.last["policy"] == "probe"
    assert lived.last["reclaimed"] == TARGET


def test_the_guest_has_lost_nothing(lived):
    assert (lived.report.kept, lived.report.lost) == (KEPT * MEBIBYTE // 4096, 0)
    assert lived.last["faults"] == 0


def test_a_client_that_listens_hears_of_the_last_of_it(lived):
    assert lived.told["BALLOON_VERDICT"]["judgement"] == "good"
    assert "BALLOON_FAULT" not in lived.told
