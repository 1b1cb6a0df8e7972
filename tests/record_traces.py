"""The traces of real guests in tests/traces: recorded anew, and what comes of them.

    python tests/record_traces.py                      all guests under all policies
    python tests/record_traces.py --policy evidence    those under one policy
    python tests/record_traces.py --verdicts           no guests: the verdicts alone

The first two need what tests/test_real_qemu.py and ``boot uml`` need, and take about
ten minutes and three. Each ends with the third: it replays every trace under every
policy, and writes what they conclude into tests/traces/verdicts.txt. Look at what
changed in it, with ``git diff``, before you believe it.
"""

from __future__ import annotations

import argparse
import functools
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from real_guests import PRE34, STOCK, Life, find_tools, live

from balloon_plugin import show
from balloon_plugin.boot.plan import Plan
from balloon_plugin.boot.story import boot_uml
from balloon_plugin.replay import conclude, replay
from balloon_plugin.trace import decode, read

TRACES = Path(__file__).parent / "traces"
VERDICTS = TRACES / "verdicts.txt"

POLICIES = ("none", "probe", "feature-bit", "evidence")
GUESTS = ("arm64be-64k", "arm64be-4k", "arm64le-64k", "arm64le-4k")
DRIVERS = {"stock": STOCK, "pre34": PRE34}
UML = "uml"

AT_ONCE = 2
"""Guests side by side: each is an emulator that takes a core of its own."""

MEBIBYTE = 1 << 20


def names(policies=POLICIES):
    """Return the names of all traces: guest, driver, and the policy that was live."""
    return [
        f"{guest}.{driver}.{policy}"
        for policy in policies
        for guest, drivers in [(UML, ["stock"]), *((name, DRIVERS) for name in GUESTS)]
        for driver in drivers
    ]


def path_of(name):
    return TRACES / f"{name}.jsonl.zst"


@functools.cache
def load(name):
    """Return the header of a trace and its moments."""
    header, moments = decode(read(path_of(name)))
    return header, list(moments)


# --- recording ----------------------------------------------------------------------


def record(name):
    """Let a guest live once, and keep its trace in place of the one there was."""
    guest, driver, policy = name.split(".")
    path = path_of(name)
    path.unlink(missing_ok=True)
    if guest == UML:
        memory = 256 * MEBIBYTE
        boot_uml(Plan(policy, 16384, memory, record=path), lambda _step: None)
    else:
        live(Life(guest, DRIVERS[driver], policy), find_tools(), 0.0, path)
    return name


# --- what comes of them -------------------------------------------------------------


@functools.cache
def replayed(name, policy):
    """Return what comes of a trace under a policy."""
    header, moments = load(name)
    return conclude(header, replay(header, moments, policy))


def verdicts(name, policy):
    """Return a line for each driver session of a trace under a policy."""
    for session in replayed(name, policy).sessions:
        shadow = session.shadow
        verdict, guesses = shadow.verdict, shadow.guesses
        defects = "+".join(defect.name for defect in verdict.defects) or "-"
        # From which event on depends on how often a clock ticked meanwhile.
        worth = "guess" if guesses else "fact"
        differs = "differs" if shadow.diverged else "same"
        yield (
            f"{name:29} {policy:12} {verdict.judgement.value:10} {verdict.state:14} "
            f"{defects:25} {differs:7} {worth}"
        )


def all_verdicts():
    return [
        line
        for name in sorted(names())
        for policy in POLICIES
        for line in verdicts(name, policy)
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", action="append", choices=POLICIES)
    parser.add_argument("--verdicts", action="store_true")
    arguments = parser.parse_args()
    if not arguments.verdicts:
        wanted = names(arguments.policy or POLICIES)
        with ProcessPoolExecutor(AT_ONCE, mp_context=get_context("spawn")) as pool:
            for name in pool.map(record, wanted):
                show.line(f"{name}: {path_of(name).stat().st_size} bytes")
    VERDICTS.write_text("\n".join([*all_verdicts(), ""]))


if __name__ == "__main__":
    main()
