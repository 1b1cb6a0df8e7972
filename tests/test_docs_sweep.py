"""The page about sweeps tells the truth: its fleet is read, its figures are found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from balloon_plugin.sweep import POLICIES, decide, processes, sweep
from balloon_plugin.sweep.draws import draw
from balloon_plugin.sweep.measures import HARMED, RIGHT, UNUSABLE, WRONG
from balloon_plugin.sweep.population import find, read

PAGE = (Path(__file__).parents[1] / "docs" / "sweep.md").read_text()
_TEXT = r"^<!-- sweep -->\n+```text\n(.*?)^```"
(OUTPUT,) = re.findall(_TEXT, PAGE, re.MULTILINE | re.DOTALL)


def test_the_fleet_on_the_page_can_be_drawn_from(tmp_path):
    (text,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "ours.toml").write_text(text)

    fleet = read(tmp_path / "ours.toml")

    assert [kind.weight for kind in fleet.classes] == [120, 410]
    old, new = (
        {lot.case.circumstance for lot in draw(fleet, 2000, 1) if lot.kind == name}
        for name in ("RHEL 6.5", "rhel-6.6-be-64k")
    )
    assert "reboot-into:rhel-6.6-be-64k" in old
    assert new == {
        "usual",
        "low-memory-10",
        "save-restore-in-full",
        "low-memory-10+save-restore-in-full",
    }


def test_a_million_guests_are_as_many_different_ones_as_the_page_says():
    few = len(draw(find(), 10_000, 1))

    (number,) = re.findall(r"are ([\d,]+) different ones", PAGE)
    assert few < int(number.replace(",", "")) < 10_000


@pytest.fixture(scope="module")
def small():
    """The example with few guests: another sample of the same fleet."""
    with processes() as executor:
        return sweep("ppc64-2012", runs=300, seed=2, executor=executor)


@pytest.mark.slow
@pytest.mark.parametrize("measure", [RIGHT, WRONG, HARMED, UNUSABLE])
def test_a_smaller_sweep_finds_the_rates_on_the_page(small, measure):
    heads = next(line for line in OUTPUT.splitlines() if "probe" in line).split()
    line = next(line for line in OUTPUT.splitlines() if line.startswith(measure.name))
    shown = dict(zip(heads, map(float, line.split()[1:]), strict=True))

    assert set(shown) == {*POLICIES}
    for policy, rate in shown.items():
        found = small.rate(policy, measure).estimate
        # Twice as far as 19 of 20 samples are.
        low = found.value - 2 * (found.value - found.low)
        high = found.value + 2 * (found.high - found.value)
        assert 100 * low - 1 <= rate <= 100 * high + 1, policy


@pytest.mark.slow
def test_a_smaller_sweep_comes_to_the_same_decision(small):
    decision = decide(small)

    assert decision.choices[0] == "evidence"
    said = " ".join(OUTPUT.split())
    assert "Choose `evidence`, unless one harmed guest is worth" in said
    for outsider in decision.outsiders:
        if outsider.policy != "feature-bit":
            assert f"`{outsider.policy}` is out at any price" in said
