"""The vocabulary: frozen values that a policy can be given again and again."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing

import pytest

from balloon_plugin import events
from balloon_plugin.events import GuestFacts, MemoryRange

VALUES = [
    value
    for value in vars(events).values()
    if dataclasses.is_dataclass(value) and value.__module__ == events.__name__
]
EVENTS = typing.get_args(events.Event)


def test_all_names_are_exported_in_order():
    public = {
        name
        for name, value in vars(events).items()
        if getattr(value, "__module__", None) == events.__name__
    }

    assert public | {"Event", "PolicyEvent", "Run"} == set(events.__all__)
    assert events.__all__ == sorted(events.__all__)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_values_are_frozen_and_slotted(value):
    names = [field.name for field in dataclasses.fields(value)]
    made = value(*[()] * len(names))

    assert hash(made) == hash(value(*[()] * len(names)))
    assert not hasattr(made, "__dict__")
    for name in names:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, name, None)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_values_are_documented_field_by_field(value):
    described = re.findall(r":ivar (\w+):", inspect.getdoc(value))
    names = [field.name for field in dataclasses.fields(value)]

    assert described in (names, [])
    assert described or len(names) <= 1 or "as in" in inspect.getdoc(value)


def test_events_are_values_with_names_of_their_own():
    assert set(EVENTS) <= set(VALUES)
    assert len({event.__name__ for event in EVENTS}) == len(EVENTS)


@pytest.mark.parametrize(
    "enumeration",
    [events.Answer, events.ByteOrder, events.Judgement, events.Defect],
)
def test_choices_are_words_for_people(enumeration):
    values = [member.value for member in enumeration]

    assert all(isinstance(value, str) and value for value in values)
    assert len(set(values)) == len(values)


def test_byte_orders_are_those_of_int_from_bytes():
    assert int.from_bytes(b"\1\0", events.ByteOrder.LITTLE.value) == 1
    assert int.from_bytes(b"\1\0", events.ByteOrder.BIG.value) == 256


def test_ram_is_counted_in_pages_of_4_kib():
    facts = GuestFacts(ram=(MemoryRange(0, 1 << 30), MemoryRange(1 << 32, 0x1000)))

    assert facts.ram_pages == 262145
    assert GuestFacts(ram=()).ram_pages == 0
    assert facts.host_page_size == 4096


def test_what_is_not_known_of_a_guest_is_none():
    facts = GuestFacts(ram=())

    assert facts.byte_order is None
    assert facts.page_size is None
