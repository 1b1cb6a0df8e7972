from __future__ import annotations

import pytest

from balloon_plugin import errors


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_of_the_one_family(name):
    assert issubclass(getattr(errors, name), errors.BalloonError)


def test_the_two_kinds_are_told_apart():
    assert not issubclass(errors.HostError, errors.PluginError)
    assert not issubclass(errors.PluginError, errors.HostError)


def test_an_error_is_a_sentence_for_people():
    error = errors.HostError("the guest has no RAM: give it some")

    assert str(error) == "the guest has no RAM: give it some"
