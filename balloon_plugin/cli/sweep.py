"""``balloon-plugin sweep``: a fleet under policies, and which of them to choose."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from balloon_plugin import show
from balloon_plugin.cli.outputs import add_outputs
from balloon_plugin.cli.parsing import command, workers
from balloon_plugin.compare.records import as_csv
from balloon_plugin.report import sweep_page, write
from balloon_plugin.sweep import (
    POLICIES,
    Decision,
    Result,
    cluster,
    decide,
    populations,
    processes,
    sweep,
)
from balloon_plugin.sweep.export import as_document
from balloon_plugin.sweep.population import DEFAULT
from balloon_plugin.sweep.summary import advice, legend, rates_table, reasons

__all__ = ["add"]

INTERRUPTED = 130
"""The exit code, as of whoever dies of SIGINT."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "sweep",
        _sweep,
        "draw guests from a described fleet, and put each of them under every policy",
    )
    parser.add_argument(
        "population",
        nargs="?",
        default=DEFAULT,
        metavar="POPULATION",
        help=f"a name, or a file that ends in .toml (default: {DEFAULT})",
    )
    parser.add_argument(
        "--populations", action="store_true", help="list those that have a name"
    )
    parser.add_argument(
        "--runs",
        type=int,
        default=10_000,
        metavar="N",
        help="how many guests to draw (default: 10000)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the dice (default: 1)")
    parser.add_argument(
        "--policy",
        action="append",
        metavar="NAME[:OPTION=VALUE,...]",
        help="a policy (repeatable; default: all that come with this package)",
    )
    _add_workers(parser)
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="FILE",
        help="keep finished runs in FILE, and do none again that is in it",
    )
    add_outputs(parser)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=workers,
        metavar="N",
        help="processes to run in (default: as many as there are processors)",
    )
    where.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="run on a Dask cluster, whose scheduler has this address",
    )


def _sweep(arguments: argparse.Namespace) -> int:
    if arguments.populations:
        rows = [(each.name, each.title) for each in populations()]
        show.table(("population", "what it is"), rows)
        return 0
    bar = show.Bar()
    try:
        with bar:
            bar.note("drawing guests")
            result = _result(arguments, bar)
            bar.note("counting")
            decision = decide(result)
            if arguments.html:
                write(arguments.html, sweep_page(result, decision, arguments.words))
    except KeyboardInterrupt:
        show.error(_interrupted(bar, arguments.resume))
        return INTERRUPTED
    _print(arguments, result, decision)
    return 0


def _result(arguments: argparse.Namespace, bar: show.Bar) -> Result:
    with _executor(arguments) as executor:
        return sweep(
            arguments.population,
            arguments.policy or POLICIES,
            runs=arguments.runs,
            seed=arguments.seed,
            executor=executor,
            resume=arguments.resume,
            progress=bar,
        )


def _executor(
    arguments: argparse.Namespace,
) -> AbstractContextManager[Executor | None]:
    if arguments.cluster:
        return cluster(arguments.cluster)
    return processes(arguments.workers)


def _interrupted(bar: show.Bar, resume: Path | None) -> str:
    if not bar.total:
        return "interrupted before the first run"
    done = f"interrupted after {bar.done} of {bar.total} runs"
    if resume is None:
        return f"{done}; with --resume FILE they would have been kept"
    return f"{done}, which are in {resume}: the same command goes on from there"


def _print(arguments: argparse.Namespace, result: Result, decision: Decision) -> None:
    if arguments.json:
        print(json.dumps(as_document(result, decision), indent=2))  # noqa: T201
        return
    if arguments.csv:
        print(as_csv(result.records()), end="")  # noqa: T201
        return
    population = result.population
    show.prose(f"{result.runs:,} guests of {population.name}: {population.title}")
    show.line("")
    show.table(*rates_table(result))
    paragraphs = (legend(), advice(result, decision), reasons(result, decision))
    for paragraph in paragraphs:
        show.line("")
        for sentence in paragraph:
            show.prose(sentence)
