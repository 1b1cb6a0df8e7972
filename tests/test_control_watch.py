"""Many guests looked at again and again, while their daemons come and go."""

from __future__ import annotations

import pytest
from control_kit import Served
from fakes import RAM_PAGES

from balloon_plugin.control import Watch


@pytest.fixture
def paths(tmp_path):
    return [tmp_path / "one.sock", tmp_path / "two.sock"]


def seen(watch):
    """Return the name and the last cell of each guest."""
    return [(cells[0], cells[-1]) for cells, _ in watch.look()]


def test_all_guests_of_all_daemons_are_seen(paths):
    with Served(paths[0], "a", "b") as served, Served(paths[1], "c"):
        served.write_actual(0)
        with Watch(paths) as watch:
            assert seen(watch) == [
                ("a", "good (SCRIPTED)"),
                ("b", "no driver"),
                ("c", "no driver"),
            ]


def test_what_changes_is_seen(paths):
    with Served(paths[0]) as served, Watch(paths[:1]) as watch:
        ((before, _),) = watch.look()
        served.run(lambda: served.guests["a"].device.set_target(RAM_PAGES))
        ((after, _),) = watch.look()

    assert (before[2], after[2]) == ("0", "16M")


def test_a_daemon_that_goes_is_shown_and_found_again(paths):
    with Watch(paths[:1]) as watch:
        with Served(paths[0], "a", "b"):
            seen(watch)

        assert seen(watch) == [("a", "no answer"), ("b", "no answer")]
        with Served(paths[0], "c"):
            assert seen(watch) == [("c", "no driver")]


def test_a_daemon_that_was_never_there_is_shown_by_its_path(paths):
    with Served(paths[0]), Watch(paths) as watch:
        assert seen(watch) == [("a", "no driver"), (str(paths[1]), "no answer")]
