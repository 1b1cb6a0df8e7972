"""The stages of the policy ``evidence``: what each concludes, and lets in."""

from __future__ import annotations

import pytest
from evidence_model import (
    swap,
)
from evidence_script import (
    ACCEPTED,
    BUGGY,
    DEFERRED,
    FILLED,
    GOOD,
    REFUSED,
    SHIFTED,
    SHRUNK,
    UNDECIDED,
    after,
)

from balloon_plugin.events import (
    Defect,
    Gate,
    GuestFacts,
    PagesInflated,
    TargetRead,
    TimePassed,
)
from balloon_plugin.policies.evidence.drivers import kinds
from balloon_plugin.policies.evidence.stages import (
    Stage,
    defects,
    is_hopeless,
    judgement,
    mean_the_same,
)


def kind(name, page=1):
    every = kinds(GuestFacts(()), None)
    return next(kind for kind in every if (kind.name, kind.page) == (name, page))


RIGHT_4K, RIGHT_64K = (kind("a driver that is right", page) for page in (1, 16))
SWAPPED = kind("Linux 4.1 to 4.6, big-endian with VERSION_1")
OLD_4K = kind("Linux 2.6.27 to 3.3, big-endian")
SHIFTING = kind("Linux 2.6.29 to 3.3, big-endian", 16)
UNSHIFTED = kind("Linux 2.6.27 or 2.6.28", 16)
GROWING = kind("Linux 2.6.25")
MACOS = kind("macOS", 4)


# --- what is concluded --------------------------------------------------------------


def test_stages_are_shown_by_their_names():
    assert {stage.value for stage in Stage} == {stage.name for stage in Stage}


@pytest.mark.parametrize(
    ("stage", "alive", "expected"),
    [
        (Stage.GOOD, (RIGHT_4K, OLD_4K), GOOD),
        (Stage.FILL, (RIGHT_4K,), UNDECIDED),
        (Stage.SHRINK, (RIGHT_4K, OLD_4K), UNDECIDED),
        # nothing that is left is right
        (Stage.FILL, (OLD_4K, SHIFTING), BUGGY),
        (Stage.SHRINK, (), BUGGY),
        # it does not react, or must not move: no use whatever it is
        (Stage.WORKING, (RIGHT_4K,), BUGGY),
        (Stage.HELD, (RIGHT_4K,), BUGGY),
        (Stage.SILENT, (RIGHT_4K,), BUGGY),
    ],
)
def test_the_judgement_follows_from_the_stage_and_the_kinds_left(
    stage, alive, expected
):
    assert judgement(stage, alive) is expected


@pytest.mark.parametrize(
    ("alive", "mute", "expected"),
    [
        ((), (), ()),
        ((OLD_4K,), (), (Defect.ENDIAN_TARGET,)),
        ((SHIFTING,), (), (Defect.ENDIAN_TARGET, Defect.PAGE_SHIFT)),
        ((SHIFTING, OLD_4K), (), (Defect.ENDIAN_TARGET,)),
        ((RIGHT_4K, SHIFTING), (), ()),
        ((SWAPPED, OLD_4K), (), ()),
        ((RIGHT_4K,), (Defect.NO_ACTUAL,), (Defect.NO_ACTUAL,)),
        ((MACOS,), (Defect.NO_ACTUAL,), (Defect.UNIT_SCALE, Defect.NO_ACTUAL)),
    ],
)
def test_a_defect_counts_once_every_kind_left_has_it(alive, mute, expected):
    assert defects(alive, mute) == expected


@pytest.mark.parametrize(
    ("alive", "hopeless"),
    [
        ((), True),
        ((RIGHT_4K,), False),
        ((OLD_4K,), False),
        ((SHIFTING,), True),
        ((GROWING,), True),
        # the one that frees wrong pages may yet be ruled out
        ((RIGHT_4K, SHIFTING, GROWING), False),
        ((OLD_4K, SHIFTING), False),
        ((GROWING, OLD_4K), True),
        ((SHIFTING, GROWING), True),
    ],
)
def test_it_is_hopeless_when_none_is_left_that_may_deflate(alive, hopeless):
    assert is_hopeless(alive) is hopeless


@pytest.mark.parametrize(
    ("alive", "same"),
    [
        ((RIGHT_4K,), True),
        ((UNSHIFTED,), True),
        ((RIGHT_4K, RIGHT_64K, MACOS), True),
        ((RIGHT_4K, UNSHIFTED), False),
        ((RIGHT_4K, SWAPPED), False),
    ],
)
def test_the_same_numbers_may_mean_other_pages(alive, same):
    assert mean_the_same(alive) is same


# --- what it lets in ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("done", "gate"),
    [
        (
            (),
            Gate(
                33,
                reclaim=False,
                targets=DEFERRED,
                reason="the driver is being tested; the target takes effect after that",
            ),
        ),
        (
            FILLED,
            Gate(
                1,
                reclaim=False,
                targets=DEFERRED,
                reason="the driver is being tested; the target takes effect after that",
            ),
        ),
        ((*FILLED, *SHRUNK), Gate(500, reclaim=True, targets=ACCEPTED)),
        (
            (TargetRead(33), PagesInflated(SHIFTED)),
            Gate(
                swap(256),
                reclaim=False,
                targets=REFUSED,
                reason="the balloon is shut: the driver reads num_pages in the wrong "
                "byte order, shifts page numbers the wrong way",
            ),
        ),
        (
            (TargetRead(33), PagesInflated((5, 5, 5))),
            Gate(
                3,
                reclaim=False,
                targets=REFUSED,
                reason="the balloon is shut: the driver shifts page numbers the wrong "
                "way",
            ),
        ),
        (
            (TargetRead(33), PagesInflated((2**32 - 1,) * 3)),
            Gate(
                3,
                reclaim=False,
                targets=REFUSED,
                reason="the balloon is shut: the driver cannot be believed",
            ),
        ),
        (
            (TimePassed(0.0), TimePassed(5.0)),
            Gate(
                33,
                reclaim=False,
                targets=DEFERRED,
                reason="the driver does not react, so it cannot be judged",
            ),
        ),
    ],
)
def test_each_stage_has_its_gate(done, gate):
    assert after(*done).policy_gate(500) == gate
