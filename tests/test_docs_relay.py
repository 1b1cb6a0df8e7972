"""The recipe for the relay works, for whoever reads nothing else."""

from __future__ import annotations

import pytest
from walkthrough import blocks, play

from balloon_plugin.boot.uml import find_uml

CONSOLE = [block for block in blocks("docs/relay.md") if block.language == "console"]


def test_every_block_is_typed():
    assert {block.hint for block in CONSOLE} == {"terminal"}


@pytest.mark.real
@pytest.mark.slow
def test_a_real_guest_does_what_is_shown(here, terminal, require_real):
    require_real(find_uml)

    terminals = play(CONSOLE, here, terminal)

    terminals["guest"].type("/ # poweroff -f")
    terminals["relay"].see(["vm1.sock: the front end went"])
    for name in ("device", "relay"):
        terminals[name].type("^C")
