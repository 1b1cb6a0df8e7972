"""Driver sessions; what a front end makes of them is the protocol's to test."""

from __future__ import annotations

from balloon_plugin.hosts.vhost_user.effects import Resume
from balloon_plugin.hosts.vhost_user.session import Session

CAME = Resume(features=1 << 32, ready=True)


def test_a_session_that_came_along_can_go_away_again_before_it_went_on():
    session = Session()
    assert session.going is None

    session.park(CAME)

    assert session.parked
    assert session.going == CAME
    assert session.modern


def test_what_the_driver_accepts_counts_for_more_than_what_came_along():
    session = Session()
    session.park(CAME)

    session.accept(2)

    assert session.features == 2


def test_a_session_goes_on_once():
    session = Session(CAME)

    assert CAME in session.begin(goes_on=True)

    assert not session.parked
    assert CAME not in session.begin(goes_on=True)
