"""A file of finished runs, so that a sweep can be taken up where it was left.

Lines of JSON: the first says what it is, every other one is a run with the version of
the code that did it (:mod:`balloon_plugin.sweep.version`). Lines are only ever added,
so one file serves many sweeps, and a run by other code stays and is not used.
"""

from __future__ import annotations

import contextlib
import errno
import io
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
        self._path = path
        with self._said():
            self._file = path.open("a+b", buffering=0)
        try:
            self._begin()
        except HostError:
            self._file.close()
            raise

    def _begin(self) -> None:
        if self._file.seek(0, os.SEEK_END) == 0:
            self._write(HEAD)
        if next(self._lines(), None) != HEAD:
            raise HostError(
                f"{self._path} is no file of finished runs of version "
                f"{HEAD['version']}: name another"
            )
        self._end_line()

    def _end_line(self) -> None:
        """End a line that a crash left unfinished, so that the next is whole."""
        self._file.seek(-1, os.SEEK_END)
        if self._file.read(1) != b"\n":
            self._put(b"\n")

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
            # What else is there was damaged, or is of nobody: it is run again.
            with contextlib.suppress(KeyError, TypeError):
                row = line["row"]
                task = Case(row["guest"], row["circumstance"]), row["policy"]
                if task in wanted and line["code"] == versions[row["policy"]]:
                    found[task] = _row(row)
        return found

    def add(self, row: Row) -> None:
        """Write a run down; it is in the file when this returns."""
        self._write({"code": version_of(row.policy), "row": row.as_dict()})

    def _write(self, value: dict[str, Any]) -> None:
        self._put(json.dumps(value, separators=(",", ":")).encode() + b"\n")

    def _put(self, data: bytes) -> None:
        with self._said():
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """Say what the operating system has against it, and of which file."""
        try:
            yield
        except OSError as error:
            message = f"{self._path} cannot be written: {error.strerror}"
            raise HostError(message) from error

    def _lines(self) -> Iterator[Any]:
        """Yield what is in the file, except what a crash left unfinished."""
        self._file.seek(0)
        for line in io.BytesIO(self._file.read()):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):  # the latter if nested too deeply
                continue


def _row(values: dict[str, Any]) -> Row:
    """Return what :meth:`~balloon_plugin.compare.Row.as_dict` returned as a row."""
    names = (field.name for field in fields(Row))
    kept = {name: values[name] for name in names}
    return Row(
        **kept
        | {"defects": tuple(kept["defects"]), "evidence": tuple(kept["evidence"])}
    )
