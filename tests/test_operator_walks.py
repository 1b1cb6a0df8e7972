"""The operator does anything at any moment, to real simulated drivers.

Under ``evidence`` nothing in use is lost, but for what nobody avoids, and in the end
every balloon works that can. A balloon that is held is asked for nothing and gives
nothing back, whatever policy holds it. Whoever lets another policy rule answers for
what that believes: :meth:`walking.Walk.who_answers` says when.

What happens on a walk follows from its number. One that goes wrong is made shorter, and
goes wrong once more to be seen.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import settings
from walking import Walk

from balloon_plugin.compare.circumstance import USUAL, Circumstance, Site
from balloon_plugin.features import DeviceOptions
from balloon_plugin.guests import GUESTS
from balloon_plugin.guests.traits import Allocation, Conditions

EVIDENCE = ("evidence", "evidence:patience=1", "evidence:align=yes")
"""Of the same power; but none has a verdict of another's driver."""

OTHERS = ("none", "probe", "probe:pages=256", "feature-bit", "feature-bit:always=yes")

EVERYBODY = (*EVIDENCE, *OTHERS)

MOVES = (
    (
        12,
        "ask",
        (*(0, 0, 0, 1, 16, 33, 100, 255), *(256, 512, 1024, 1024, 2048, 8192)),
    ),
    (12, "go_on", (1, 1, 2, 3, 5, 10, 30, 100)),
    (9, "pass_time", (0.2, 1, 7, 20)),
    (5, "change_policy", ("POLICY",)),
    (9, "restore", ("POLICY",)),
    (1, "lose_front_end", ()),
    (3, "find_front_end", ("POLICY",)),
    (3, "inhibit", (None, "a device")),
    (1, "ask_for_statistics", (0, 1)),
    (1, "ask_for_hints", ()),
    (1, "learn", ()),
    (2, "find_memory", (None, None, 0, 1, 17, 200)),
    (2, "use_memory", (1, 64, 300)),
    (1, "run_out_of_memory", (256,)),
    (1, "compact", (3,)),
    (1, "reboot", ()),
    (1, "unload", ()),
    (2, "load", ()),
    (1, "hibernate", ()),
    (2, "wake", ()),
)
"""How often each move is made, by its name in :class:`walking.Walk`, and its choices.

In place of ``POLICY`` comes one of those that the walk is about.
"""


@dataclass(frozen=True)
class Plan:
    """A walk as a value."""

    guest: str
    policy: str
    circumstance: Circumstance = USUAL
    options: DeviceOptions = field(default_factory=DeviceOptions)
    moves: tuple[tuple[Any, ...], ...] = ()


def plan(number, policies):
    """Return a walk: each guest in turn, and all else as the number has it."""
    chance = random.Random(number)  # noqa: S311 - to be repeated
    names = sorted(GUESTS)
    weights = [weight for weight, *_ in MOVES]
    moves = chance.choices(MOVES, weights, k=chance.choice((4, 12, 25)))
    return Plan(
        names[number % len(names)],
        chance.choice(policies),
        Circumstance(conditions=_conditions(chance), site=_site(chance)),
        DeviceOptions(
            deflate_on_oom=chance.random() < 0.3,
            must_tell_host=chance.random() < 0.3,
            reporting=chance.random() < 0.3,
            hinting=chance.random() < 0.1,
        ),
        tuple(_move(chance, name, choices, policies) for _, name, choices in moves),
    )


def _conditions(chance):
    return Conditions(
        first_batch=chance.choice((None, None, None, 0, 1, 17)),
        allocation=chance.choice(tuple(Allocation)),
    )


def _site(chance):
    return Site(
        host_page_size=chance.choice((4096, 4096, 65536)),
        tells_byte_order=chance.random() < 0.7,
        tells_page_size=chance.random() < 0.5,
        holds_early_kicks=chance.random() < 0.2,
    )


def _move(chance, name, choices, policies):
    if not choices:
        return (name,)
    argument = chance.choice(choices)
    return name, chance.choice(policies) if argument == "POLICY" else argument


def play(plan):
    """Go on a walk, and look around after every move."""
    walk = Walk(plan.guest, plan.policy, plan.circumstance, plan.options)
    with contextlib.closing(walk):
        for name, *arguments in plan.moves:
            getattr(walk, name)(*arguments)
            walk.look()
        walk.end()


def goes_wrong(plan):
    try:
        play(plan)
    except Exception:  # noqa: BLE001 - whatever it is
        return True
    return False


def shortened(plan):
    """Return a walk that goes wrong without the moves that it does not need."""
    for at in reversed(range(len(plan.moves))):
        shorter = replace(plan, moves=plan.moves[:at] + plan.moves[at + 1 :])
        if goes_wrong(shorter):
            plan = shorter
    return plan


STORIES = {
    "restored between a look at the target and the buffer for it": Plan(
        "linux-3.4-be-4k",
        "evidence:patience=1",
        moves=(
            ("pass_time", 1),
            ("ask", 1024),
            ("go_on", 4),
            ("restore", "evidence"),
            ("pass_time", 7),
        ),
    ),
    "another policy, and another target, before a buffer arrives": Plan(
        "linux-6.12-le-64k",
        "evidence",
        moves=(
            ("ask", 1024),
            ("lose_front_end",),
            ("pass_time", 7),
            ("change_policy", "evidence"),
            ("ask", 0),
        ),
    ),
    "another target while the driver reads it byte by byte": Plan(
        "linux-3.3-be-4k",
        "evidence",
        moves=(("pass_time", 7), ("ask", 1024), ("go_on", 3), ("ask", 0)),
    ),
    "no memory while it is tested": Plan(
        "openbsd-le-4k", "evidence", moves=(("find_memory", 0), ("pass_time", 20))
    ),
    "held, and read as before": Plan(
        "linux-3.19-v1-be-4k",
        "evidence",
        moves=(
            ("pass_time", 7),
            ("ask", 1024),
            ("pass_time", 7),
            ("restore", "probe"),
            ("compact", 3),
            ("pass_time", 1),
            ("restore", "evidence"),
        ),
    ),
}
"""What walks have found, or are too seldom to find."""

WALKS = round(1.5 * settings.default.max_examples)


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_what_went_wrong_once_does_not_again(story):
    play(story)


@pytest.mark.slow
@pytest.mark.parametrize("policies", [EVIDENCE, EVERYBODY], ids=["evidence", "any"])
def test_whatever_the_operator_does_no_guest_loses_what_it_uses(policies):
    plans = (plan(number, policies) for number in range(WALKS))

    wrong = next(filter(goes_wrong, plans), None)

    if wrong is not None:
        wrong = shortened(wrong)
        play(wrong)
        pytest.fail(f"{wrong} goes wrong, but not each time")
