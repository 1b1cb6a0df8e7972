"""``balloon-plugin policies``."""

from __future__ import annotations


def test_policies_are_listed_with_a_line_on_each(run):
    code, out, err = run("policies")

    assert (code, err) == (0, "")
    heads, *lines = out.splitlines()
    assert heads.split() == ["policy", "options", "from", "what", "it", "does"]
    probe = next(line for line in lines if line.startswith("probe "))
    assert probe.split()[:4] == ["probe", "pages=16", "balloon-plugin", "Ask"]
