"""``balloon-plugin replay``: a trace, run against policies."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from balloon_plugin import narrate, show
from balloon_plugin.browse import Browser
from balloon_plugin.cli.outputs import report_file
from balloon_plugin.cli.parsing import command
from balloon_plugin.errors import HostError
from balloon_plugin.replay import Replayed, Session, conclude, replay
from balloon_plugin.report import replay_page, write
from balloon_plugin.terminal import turn_pages
from balloon_plugin.trace import Header, Moment, decode, read

__all__ = ["add"]

_HEADS = ("policy", "events", "verdict", "state", "differs", "worth", "newest evidence")


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands, "replay", _replay, "run a trace that --record made against policies"
    )
    parser.add_argument("trace", type=Path, metavar="FILE", help="the trace")
    parser.add_argument(
        "--policy",
        action="append",
        metavar="NAME[:OPTION=VALUE,...]",
        help="a policy (repeatable; default: the one that was recorded)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--interactive", action="store_true", help="step through it, key by key"
    )
    how.add_argument("--json", action="store_true", help="print what comes of it")
    parser.add_argument(
        "--html",
        type=report_file,
        metavar="FILE",
        help="write a report to FILE, a page with everything in it",
    )


def _replay(arguments: argparse.Namespace) -> int:
    header, moments = decode(read(arguments.trace))
    known = list(moments)
    policies = arguments.policy or [header.policy]
    if arguments.interactive:
        return _browse(arguments.trace, header, known, policies)
    start = time.monotonic()
    steps = [list(replay(header, known, policy)) for policy in policies]
    if arguments.html and not known:
        raise _nothing_in(arguments.trace)
    found = [conclude(header, each) for each in steps]
    took = time.monotonic() - start
    if arguments.html:
        pairs = list(zip(found, steps, strict=True))
        write(arguments.html, replay_page(header, pairs, arguments.words))
    if arguments.json:
        replays = [each.as_dict() for each in found]
        print(json.dumps({"replays": replays}, indent=2))  # noqa: T201
    else:
        _show(header, found, took)
    return int(any(each.faithful is False for each in found))


def _show(header: Header, found: list[Replayed], took: float) -> None:
    rows = [_cells(each, session) for each in found for session in each.sessions]
    what = f"{header.guest or 'a guest'}, recorded under {header.policy}"
    show.prose(
        f"{what}: {found[0].seconds:.1f} s, replayed {len(found)} times in {took:.2f} s"
        if len(found) > 1
        else f"{what}: {found[0].seconds:.1f} s, replayed in {took:.2f} s"
    )
    if rows:
        show.table(_HEADS, rows)
    else:
        show.line("No driver shows itself in it.")
    for each in found:
        for text in _remarks(each):
            show.prose(text)


def _cells(replayed: Replayed, session: Session) -> tuple[str, ...]:
    shadow = session.shadow
    verdict, guesses = shadow.verdict, shadow.guesses
    newest = verdict.evidence[-1] if verdict.evidence else None
    return (
        replayed.policy,
        f"{session.first}-{session.last}",
        verdict.judgement.value,
        verdict.state,
        f"from {shadow.diverged.at}" if shadow.diverged else "never",
        f"guess from {guesses.at}" if guesses else "fact",
        f"{newest.event}: {newest.shows}" if newest else "-",
    )


def _remarks(replayed: Replayed) -> list[str]:
    """Say where a policy differs first, and whether the same came to the same."""
    if replayed.faithful:
        return [f"{replayed.policy} comes to the same as it did when it was recorded."]
    if replayed.faithful is False:
        what = f"{replayed.policy} does not come to the same as it did"
        return [f"{what}; it is another version by now. {replayed.strays}"]
    return [
        narrate.sentence(event)
        for session in replayed.sessions
        for event in (session.shadow.diverged, session.shadow.guesses)
        if event is not None
    ]


def _browse(
    path: Path, header: Header, moments: list[Moment], policies: list[str]
) -> int:
    if len(policies) != 1:
        raise HostError("--interactive shows one replay: give --policy once")
    steps = list(replay(header, moments, policies[0]))
    if not steps:
        raise _nothing_in(path)
    title = f"{path.name}, {header.policy} replayed under {policies[0]}"
    browser = Browser(steps, title, header.policy)
    turn_pages(browser.page, browser.press)
    return 0


def _nothing_in(path: Path) -> HostError:
    return HostError(f"there is no event in {path}: it was cut off at its beginning")
