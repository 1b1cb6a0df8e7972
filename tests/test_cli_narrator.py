"""What ``serve`` tells of its guests, however many faults they make."""

from __future__ import annotations

from fakes import RAM_PAGES, ScriptedPolicy, follow, rig

from balloon_plugin.cli.narrator import narrated


def told(capsys):
    return capsys.readouterr().out.splitlines()


def test_news_are_told_and_nothing_else(capsys):
    made = rig(ScriptedPolicy(follow))
    with narrated("a", made.device):
        made.device.set_target(7)
        made.device.tick()

    assert told(capsys) == ["a: target of 7 pages is accepted"]


def test_a_guest_that_is_at_fault_all_the_time_does_not_fill_the_log(capsys):
    made = rig(ScriptedPolicy(follow))
    fault = "a: driver at fault in queue 0: 1 page numbers are not in RAM"
    with narrated("a", made.device):
        for _ in range(100):
            made.inflate(RAM_PAGES)
        assert told(capsys) == [fault] * 5

        made.device.tick()
        assert told(capsys) == ["a: 95 times more GuestFault"]

        for _ in range(6):
            made.inflate(RAM_PAGES)
        made.device.set_target(7)
        assert told(capsys)[5:] == ["a: target of 7 pages is accepted"]

    assert told(capsys) == ["a: 1 times more GuestFault"]
