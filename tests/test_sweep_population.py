"""Fleets described: what is read, and what is refused with its place in the file."""

from __future__ import annotations

import pytest
from fleets import SMALL

from balloon_plugin.errors import HostError
from balloon_plugin.sweep import population


@pytest.fixture
def described(tmp_path):
    """Read a fleet from a text."""

    def described(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return population.find(path)

    return described


def test_a_fleet_is_read_from_its_file(described):
    fleet = described(SMALL)

    assert (fleet.name, fleet.title, fleet.about) == ("mine", "two kinds", "made up")
    good, old = fleet.classes
    assert (good.name, good.guest, good.weight) == (*["linux-3.4-be-4k"] * 2, 2)
    assert (old.name, old.about) == ("old", "the endian bug")
    memory, place, event = old.choices
    assert memory.circumstances == ("usual", "low-memory-10")
    assert memory.weights == (3, 1)
    assert place.circumstances == ("usual", "scattered")
    assert event.circumstances == ("usual", "retarget-in-full")


def test_a_class_has_the_choices_of_all_others_too(described):
    good, old = described(SMALL).classes

    assert [each.name for each in good.choices] == [each.name for each in old.choices]
    assert good.choices[-1].circumstances == ("usual",)


def test_what_a_class_says_replaces_what_the_fleet_says(described):
    own = '[class.circumstances.memory]\n"low-memory-1" = 1\n'

    good, old = described(f"{SMALL}{own}").classes

    assert good.choices[0].circumstances == ("usual", "low-memory-10")
    assert old.choices[0].circumstances == ("low-memory-1",)


def test_what_weighs_nothing_is_never_drawn(described):
    good, _ = described(SMALL.replace("low-memory-10 = 1", "low-memory-10 = 0")).classes

    assert good.choices[0].circumstances == ("usual",)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("title =", "title", "cannot be read: "),
        ('"made up"', "3", "mine.toml: about has to be a text"),
        ("weight = 2", "wait = 2", "mine.toml, class 1: weight has to be a number of"),
        ("weight = 2", "weight = -1", "weight has to be a number of 0 or more"),
        ("weight = 2", "weight = true", "weight has to be a number of 0 or more"),
        ("weight = 2", "weight = inf", "weight has to be a number of 0 or more"),
        ("weight = 2", "weight = 1e308", "a number of 0 or more, up to 1e+100"),
        ("weight = 2", f"weight = 1{'0' * 400}", "weight has to be a number of 0 or"),
        ("weight = 2", f"weight = 1{'0' * 5000}", "cannot be read: "),
        ("weight = 2", f"weight = {'[' * 5000}", "cannot be read: "),
        ("weight = 2", "weight = 2\nwait = 1", "class 1: nobody knows what wait is"),
        ('about = "made', 'abut = "made', "mine.toml: nobody knows what abut is"),
        ("linux-3.4-be-4k", "linux-3.4-be-5k", "class 1: there is no guest "),
        ("low-memory-10", "low-memory", "circumstances, memory: there is no circumst"),
        ("usual = 1\nscattered = 1", "usual = 0", "place: one weight has to be more"),
        ("[circumstances.place]", "[circumstances]\nplace = 1\n[x]", "place has to be"),
        ('name = "old"', 'name = "linux-3.4-be-4k"', "2 classes are called linux-3.4"),
        ("[[class]]\nguest", "[class]\nguest", "cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(described, old, new, why):
    with pytest.raises(HostError) as caught:
        described(SMALL.replace(old, new, 1))

    assert why in str(caught.value)


def test_a_fleet_of_nobody_is_refused(described):
    with pytest.raises(HostError, match=r"give a .*class.* of guests with a weight"):
        described('title = "nobody"')


def test_one_class_is_written_as_a_list_too(described):
    with pytest.raises(HostError, match=r"write \[\[class\]\] for each"):
        described('[class]\nguest = "no-driver"\nweight = 1')


def test_respects_that_contradict_each_other_are_refused(described):
    more = "[circumstances.more]\nusual = 1\nlow-memory-1 = 1\n"

    with pytest.raises(HostError, match="contradicts itself about first_batch"):
        described(SMALL.replace("[[class]]", f"{more}[[class]]", 1))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(HostError, match=r"cannot be read: .*No such file"):
        population.find(tmp_path / "none.toml")


def test_a_name_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(HostError, match="did you mean ppc64-2012"):
        population.find("ppc64-2013")


def test_a_name_that_is_near_nothing_is_refused_with_all():
    with pytest.raises(HostError, match="there is ppc64-2012"):
        population.find("x")


def test_what_comes_with_the_package_can_be_drawn_from():
    (fleet,) = population.populations()

    assert fleet == population.find()
    assert sum(kind.weight for kind in fleet.classes) == 100
    assert all(kind.about for kind in fleet.classes)
