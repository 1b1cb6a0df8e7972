"""What a query shows."""

from __future__ import annotations

import dataclasses

import pytest
from fakes import GOOD, OPEN, SHUT

from balloon_plugin.status import Status


def status(**fields):
    usual = {
        "policy": "scripted",
        "requested": 0,
        "advertised": 0,
        "actual": 0,
        "actual_clamped": False,
        "ballooned": 0,
        "reclaimed": 0,
        "ram": 4096,
        "features": None,
        "driver": False,
        "faults": 0,
        "last_fault": "",
        "accepted": False,
        "gate": SHUT,
        "verdict": GOOD,
    }
    return Status(**usual | fields)


def test_what_a_good_driver_holds_is_shown():
    assert status(gate=OPEN, accepted=True, actual=256).balloon_pages == 256


def test_pages_of_a_probe_are_not_shown():
    assert status(gate=SHUT, actual=16).balloon_pages == 0


def test_a_status_stays_as_it_is():
    shown = status()

    with pytest.raises(dataclasses.FrozenInstanceError):
        shown.actual = 1
