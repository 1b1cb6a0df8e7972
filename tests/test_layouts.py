"""The layouts against sizes, offsets and numbers taken from headers and specifications.

``data/linux_layouts.json`` is what the program beside it printed, ``data/
spec_layouts.json`` was typed from the texts that it names.
"""

from __future__ import annotations

import json
import re
import types
from pathlib import Path

import pytest

from balloon_plugin import layouts
from balloon_plugin.events import ByteOrder

DATA = Path(__file__).parent / "data"
LINUX = json.loads((DATA / "linux_layouts.json").read_text())
SPEC = json.loads((DATA / "spec_layouts.json").read_text())
VHOST_USER = SPEC["vhost_user"]

STRUCTS = LINUX["structs"] | VHOST_USER["structs"]
NUMBERS = (
    LINUX["numbers"]
    | SPEC["linux_6_12"]["numbers"]
    | SPEC["virtio"]["numbers"]
    | VHOST_USER["numbers"]
)


def by_name(enumeration, prefix=""):
    return {prefix + member.name: member.value for member in enumeration}


def test_every_structure_has_a_golden_one():
    assert [layout.name for layout in layouts.LAYOUTS] == [
        layout.name
        for layout in vars(layouts).values()
        if isinstance(layout, layouts.Layout)
    ]
    assert {layout.name for layout in layouts.LAYOUTS} == set(STRUCTS)


@pytest.mark.parametrize("layout", layouts.LAYOUTS, ids=lambda layout: layout.name)
def test_sizes_and_offsets_are_those_of_the_headers(layout):
    golden = STRUCTS[layout.name]

    assert layout.size == golden["size"]
    assert layout.offsets == golden["offsets"]
    assert layout.fields == tuple(golden["offsets"])


@pytest.mark.parametrize("layout", layouts.LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("order", ByteOrder)
def test_twins_put_each_field_where_it_belongs(layout, order):
    values = range(1, len(layout.fields) + 1)
    ends = [*list(layout.offsets.values())[1:], layout.size]

    packed = layout.of(order).pack(*values)

    assert len(packed) == layout.size
    assert [
        int.from_bytes(packed[start:end], order.value)
        for start, end in zip(layout.offsets.values(), ends, strict=True)
    ] == list(values)


def test_feature_bits_are_those_of_the_headers():
    golden = {
        name: number
        for name, number in NUMBERS.items()
        if re.match(r"VIRTIO_(BALLOON_|RING_)?F_|VHOST_(USER_)?F_", name)
    }

    assert by_name(layouts.Feature) == golden


def test_statistics_tags_are_those_of_the_headers():
    golden = {
        name: number
        for name, number in NUMBERS.items()
        if name.startswith("VIRTIO_BALLOON_S_")
    }

    assert by_name(layouts.StatTag) == golden


def test_status_bits_are_those_of_the_headers():
    golden = {
        name: number
        for name, number in NUMBERS.items()
        if name.startswith("VIRTIO_CONFIG_S_")
    }
    # The specification has another word than the header for the one bit.
    golden["VIRTIO_CONFIG_S_DEVICE_NEEDS_RESET"] = golden.pop(
        "VIRTIO_CONFIG_S_NEEDS_RESET"
    )

    assert by_name(layouts.Status, "VIRTIO_CONFIG_S_") == golden


@pytest.mark.parametrize(
    ("enumeration", "golden"),
    [
        (layouts.Queue, SPEC["virtio"]["queues"]),
        (layouts.VhostUserRequest, VHOST_USER["requests"]),
        (layouts.VhostUserBackendRequest, VHOST_USER["backend_requests"]),
        (layouts.VhostUserProtocolFeature, VHOST_USER["protocol_features"]),
    ],
)
def test_numbers_are_those_of_the_texts(enumeration, golden):
    assert by_name(enumeration) == golden


def test_every_other_number_is_that_of_the_headers():
    numbers = {
        name: value
        for name, value in vars(layouts).items()
        if type(value) is int and not name.startswith("_") and name != "PAGE_SIZE"
    }

    assert numbers == {name: NUMBERS.get(name) for name in numbers}


def test_a_page_is_what_the_shift_says():
    assert 1 << NUMBERS["VIRTIO_BALLOON_PFN_SHIFT"] == layouts.PAGE_SIZE


def test_bits_have_masks():
    assert layouts.Feature.VIRTIO_F_VERSION_1.mask == 0x1_0000_0000
    assert layouts.VhostUserProtocolFeature.STATUS.mask == 0x1_0000


def test_a_declaration_that_hides_padding_is_refused(monkeypatch):
    padded = types.SimpleNamespace(
        size=4, __fields_types__={"byte": types.SimpleNamespace(fmt="<B", offset=0)}
    )
    monkeypatch.setattr(layouts.cstruct, "parse", lambda *_, **__: padded)

    with pytest.raises(AssertionError, match="odd: 1 bytes compiled, 4 declared"):
        layouts._declare("odd", "u8 byte;")
