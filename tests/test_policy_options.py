"""What the options of policies accept, and the sentence that answers the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.errors import PluginError
from balloon_plugin.policies.options import flag, integer, is_whole


@pytest.mark.parametrize("value", [16, "16", " 16 ", "0016"])
def test_integer_takes_numbers_and_decimal_text(value):
    assert integer("pages", value, 1, 20) == 16


@pytest.mark.parametrize("value", [1, "1", 20, "20"])
def test_integer_takes_both_ends_of_the_range(value):
    assert integer("pages", value, 1, 20) == int(value)


NO_NUMBERS = ["", "many", "0x10", "1_6", "1.0", "+1", "٣", "³", None, True, 1.0, b"1"]
OUT_OF_RANGE = [0, 21, "0", "21", -1, "-1", "1" * 21, "1" * 5000]


@pytest.mark.parametrize("value", [*NO_NUMBERS, *OUT_OF_RANGE])
def test_integer_refuses_all_else_in_one_sentence(value):
    with pytest.raises(PluginError) as caught:
        integer("pages", value, 1, 20)

    assert str(caught.value) == (
        f"the option pages takes a whole number from 1 to 20, not {value!r}"
    )


@given(st.integers(0, 2**64 - 1))
def test_integer_reads_back_what_a_number_prints(number):
    assert integer("bits", str(number), 0, 2**64 - 1) == number


@pytest.mark.parametrize("value", [True, "yes", "true", "on", "1", " YES ", "True"])
def test_flag_takes_yes(value):
    assert flag("always", value) is True


@pytest.mark.parametrize("value", [False, "no", "false", "off", "0", "Off", "FALSE "])
def test_flag_takes_no(value):
    assert flag("always", value) is False


@pytest.mark.parametrize("value", ["", "maybe", "2", None, 1, 0, b"yes", []])
def test_flag_refuses_all_else_in_one_sentence(value):
    with pytest.raises(PluginError) as caught:
        flag("always", value)

    assert str(caught.value) == f"the option always takes yes or no, not {value!r}"


@pytest.mark.parametrize("value", [1, 2, 3])
def test_is_whole_takes_integers_in_range(value):
    assert is_whole(value, 1, 3)


@pytest.mark.parametrize("value", [0, 4, True, 2.0, "2", None, [2]])
def test_is_whole_takes_nothing_else(value):
    assert not is_whole(value, 1, 3)
