"""The course of a run: every act at its moment, once, and every phase to its end."""

from __future__ import annotations

import pytest
from courses import Spy, course, go

from balloon_plugin.compare.circumstance import RETARGET, TARGET, Act, Stop
from balloon_plugin.compare.clerk import Phase
from balloon_plugin.compare.course import PATIENCE, QUIET

GUEST = "linux-3.4-be-4k"
STATISTICS = "driver sends 2 statistics"
NAMES = ["interrupt", "retarget", "stats", "oom", "compaction", "hibernation"]
NAMES += ["module-reload", "save-restore"]


@pytest.fixture
def spy(monkeypatch):
    """Notes acts instead of doing them."""
    return Spy(monkeypatch)


# --- moments ------------------------------------------------------------------------

SIGNS = {
    Stop.NEGOTIATED: "FeaturesAcked",
    Stop.LOOKING: "TargetRead",
    Stop.INFLATING: "PagesInflated",
    Stop.REPORTED: "ActualWritten",
    Stop.DEFLATING: "PagesDeflated",
}


@pytest.mark.parametrize("stop", SIGNS, ids=lambda stop: stop.text)
def test_moments_of_the_test_come_with_their_event(spy, stop):
    [seen] = spy.run(GUEST, f"interrupt-in-{stop.text}", "probe")

    assert seen.events.count(SIGNS[stop]) == 1
    later = [
        SIGNS[other]
        for other in SIGNS
        if list(SIGNS).index(other) > list(SIGNS).index(stop)
    ]
    assert not set(later) & set(seen.events)
    assert (seen.now, seen.requested) == (0.0, 0)


@pytest.mark.parametrize(
    ("stop", "requested", "parked"),
    [
        (Stop.IDLE, 0, 0),
        (Stop.GROWING, TARGET, 256),
        (Stop.FULL, TARGET, TARGET),
        (Stop.SHRINKING, 0, TARGET),
        (Stop.EMPTY, 0, 0),
    ],
)
def test_later_moments_are_where_the_balloon_is(spy, stop, requested, parked):
    [seen] = spy.run(GUEST, f"interrupt-in-{stop.text}")

    assert (seen.requested, seen.parked) == (requested, parked)
    assert (seen.events.count("TargetRequested"), seen.steps > 0) == (
        {Stop.IDLE: 0, Stop.GROWING: 1, Stop.FULL: 1}.get(stop, 2),
        True,
    )


@pytest.mark.parametrize("stop", [Stop.IDLE, Stop.FULL, Stop.EMPTY])
def test_nothing_moves_any_more_for_as_long_as_a_policy_may_wait(spy, stop):
    [seen] = spy.run(GUEST, f"interrupt-in-{stop.text}")

    moves = ("PagesInflated", "PagesDeflated", "ActualWritten", "TargetRead")
    last = max(
        seen.events[::-1].index(move) * -1 for move in moves if move in seen.events
    )
    quiet = seen.events[len(seen.events) + last :]
    assert quiet.count("TimePassed") >= QUIET


@pytest.mark.parametrize("stop", Stop, ids=lambda stop: stop.text)
@pytest.mark.parametrize("name", NAMES)
def test_every_act_happens_once_at_every_moment(spy, name, stop):
    [seen] = spy.run("linux-6.12-le-4k", f"{name}-in-{stop.text}")

    assert (seen.turn.act.name, seen.turn.moment) == (
        name.upper().replace("-", "_"),
        stop,
    )


@pytest.mark.parametrize("policy", ["none", "probe", "feature-bit", "evidence"])
@pytest.mark.parametrize("guest", ["no-driver", "macos-le-16k", "linux-2.6.26-be-64k"])
def test_whatever_the_guest_never_does_all_moments_come_in_order(spy, guest, policy):
    special = "+".join(f"interrupt-in-{stop.text}" for stop in Stop)
    seen = spy.run(guest, special, policy)

    phases = [
        next(phase for phase in Phase if each.turn.moment in phase.stops)
        for each in seen
    ]
    assert len(seen) == len(Stop)
    assert phases == sorted(phases, key=list(Phase).index)


def test_a_moment_that_does_not_come_is_made_up_for_at_the_end_of_its_phase(spy):
    [seen] = spy.run(GUEST, "interrupt-in-inflating", "feature-bit")

    assert "PagesInflated" not in seen.events
    assert seen.requested == 0
    assert seen.now >= QUIET


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_a_moment_may_be_a_number_of_steps(spy, steps):
    [seen] = spy.run(GUEST, f"interrupt-in-step-{steps}")

    assert seen.steps == steps


def test_acts_of_one_moment_happen_in_the_order_of_their_names(spy):
    seen = spy.run(GUEST, "stats-in-full+oom-in-full+interrupt-in-full")

    assert [each.turn.act for each in seen] == [Act.STATS, Act.OOM, Act.INTERRUPT]


def test_nothing_behind_the_boot_of_another_guest_happens_before_it(spy):
    seen = spy.run(GUEST, f"kexec-into:{GUEST}-in-growing+interrupt-in-idle")

    # The time to be idle is over, so that the interrupt has no moment any more.
    assert [each.turn.act for each in seen] == [Act.KEXEC]


# --- phases -------------------------------------------------------------------------


def test_a_guest_is_left_alone_then_asked_and_then_asked_back():
    spied = []
    whole = course(GUEST, tell=lambda _now, _steps, what: spied.append(what))
    go(whole)

    asked = [what for what in spied if what.startswith("user asks")]
    assert asked == [f"user asks for {TARGET} pages", "user asks for 0 pages"]
    assert whole.guest.parked_pages == 0


def test_whether_a_balloon_came_to_its_target_is_seen_in_the_guest():
    whole = course(GUEST, policy="none")
    whole.test()
    up = whole.ask(Phase.GROW, TARGET)
    there = whole.guest.parked_pages
    down = whole.ask(Phase.SHRINK, 0)
    whole.close()

    assert (up, there, down, whole.guest.parked_pages) == (True, TARGET, True, 0)


@pytest.mark.parametrize(
    ("guest", "reached"),
    [("linux-2.6.27-be-64k", False), ("linux-6.12-le-64k", True), ("no-driver", False)],
)
def test_a_balloon_that_is_too_large_or_too_small_has_not_come_to_it(guest, reached):
    whole = course(guest, "unaligned-target", "none")
    whole.test()

    assert whole.ask(Phase.GROW, whole.circumstance.target) is reached
    whole.close()


def test_a_dead_driver_has_not_come_to_its_target_though_it_be_there():
    whole = course(GUEST)
    whole.test()
    alive = whole.ask(Phase.SHRINK, 0)
    whole.guest.driver.oops = "it died"

    assert (alive, whole.ask(Phase.SHRINK, 0)) == (True, False)
    whole.close()


def test_a_user_who_changed_his_mind_is_given_that_first(monkeypatch):
    spy = Spy(monkeypatch, acting=True)
    spy.run(GUEST, "retarget-in-growing")

    asked = [e.num_pages for e in spy.events if type(e).__name__ == "TargetRequested"]
    reported = [e.actual for e in spy.events if type(e).__name__ == "ActualWritten"]
    assert asked == [TARGET, RETARGET, TARGET, 0]
    # On the way up for the second time, having been where the user wanted meanwhile.
    assert reported.index(RETARGET) < reported.index(TARGET)


def test_a_restless_driver_does_not_hold_a_run_up_for_ever():
    whole = go(course("linux-3.4-be-64k", "unaligned-target", "none"))

    assert whole.host.now() < 4 * PATIENCE
    assert whole.guest.steps > 1000


def test_a_driver_that_tries_again_and_again_does_not_either():
    whole = go(course("linux-2.6.26-le-4k", policy="none"))

    assert whole.host.now() <= 3 * (PATIENCE + 1)


def test_sleeping_drivers_are_woken_in_time():
    whole = course("netbsd-le-4k", "low-memory-0", "none")
    whole.test()
    woken = []
    advance = whole.host.advance

    def noting(seconds):
        advance(seconds)
        woken.append(whole.host.now())

    whole.host.advance = noting
    whole.ask(Phase.GROW, TARGET)
    whole.close()

    # One second between two batches, and ten after one that was not to be had.
    assert any(now % 1 for now in woken) or 10.0 in woken
    assert whole.guest.parked_pages == TARGET


def test_polling_asks_every_second_and_at_every_moment(monkeypatch):
    spy = Spy(monkeypatch, acting=True)
    sent = []
    whole = course(
        GUEST,
        "stats-polling",
        "evidence",
        lambda now, _steps, what: sent.append(now) if STATISTICS in what else None,
        spy,
    )
    go(whole)

    # Each second the driver has answered what it was asked the second before.
    assert set(sent) >= set(range(1, int(whole.host.now())))
    assert [seen.turn.moment for seen in spy.seen] == list(Stop)
    assert len(sent) > int(whole.host.now()) + 4


def test_time_and_steps_are_told_with_everything():
    told = []
    whole = go(course(GUEST, tell=lambda *what: told.append(what)))

    assert [now for now, *_ in told] == sorted(now for now, *_ in told)
    assert [steps for _, steps, _ in told] == sorted(steps for _, steps, _ in told)
    assert told[0][:2] == (0.0, 0)
    assert told[-1][1] == whole.guest.steps
