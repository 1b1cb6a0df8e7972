"""A file of finished runs, so that a sweep can be taken up where it was left.

Lines of JSON: the first says what it is, every other one is a run with the version of
the code that did it (:mod:`balloon_plugin.sweep.version`). Lines are only ever added,
so one file serves many sweeps, and a run by other code stays and is not used.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, Self

from balloon_plugin.compare import Row
from balloon_plugin.compare.cases import Case
from balloon_plugin.errors import HostError
from balloon_plugin.sweep.version import version_of
from balloon_plugin.sweep.work import Task

__all__ = ["Journal"]

HEAD: Final = {"format": "finished runs of balloon-plugin sweep", "version": 1}
"""The first line."""


class Journal:
    """A file of finished runs, open to be added to. Use it as a context manager.

    :param path: the file; it is made if it is not there.
    :raises HostError: if it is a file of another kind, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise HostError(f"{path} cannot be written: {error.strerror}") from error
        if self._file.tell() == 0:
            self._write(HEAD)
        if next(self._lines(), None) != HEAD:
            self._file.close()
            raise HostError(
                f"{path} is no file of finished runs of version {HEAD['version']}: "
                "name another"
            )
        self._end_line()

    def _end_line(self) -> None:
        """End a line that a crash left unfinished, so that the next is whole."""
        self._file.seek(-1, os.SEEK_END)
        if self._file.read(1) != b"\n":
            self._file.write(b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def find(self, tasks: Iterable[Task]) -> dict[Task, Row]:
        """Return the rows of those runs that were finished by the code of today."""
        wanted = set(tasks)
        versions = {policy: version_of(policy) for _, policy in wanted}
        found = {}
        for line in itertools.islice(self._lines(), 1, None):
            row = line["row"]
            task = Case(row["guest"], row["circumstance"]), row["policy"]
            if task in wanted and line["code"] == versions[row["policy"]]:
                found[task] = _row(row)
        return found

    def add(self, row: Row) -> None:
        """Write a run down; it is in the file when this returns."""
        self._write({"code": version_of(row.policy), "row": row.as_dict()})

    def _write(self, value: dict[str, Any]) -> None:
        self._file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def _lines(self) -> Iterator[dict[str, Any]]:
        """Yield what is in the file, except what a crash left unfinished."""
        self._file.seek(0)
        for line in self._file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def _row(values: dict[str, Any]) -> Row:
    """Return what :meth:`~balloon_plugin.compare.Row.as_dict` returned as a row."""
    names = (field.name for field in fields(Row))
    kept = {name: values[name] for name in names}
    return Row(
        **kept
        | {"defects": tuple(kept["defects"]), "evidence": tuple(kept["evidence"])}
    )
