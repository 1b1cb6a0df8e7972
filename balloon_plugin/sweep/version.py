"""Which version of the code a run is of: a digest of all that can change its row.

A finished run may be used again only by the same code, under the same code of its
policy. Numbers of versions do not tell: a developer's checkout keeps its number while
it changes.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import balloon_plugin
from balloon_plugin.manager import make_policy

__all__ = ["version_of"]

_EDGES: Final = (
    "boot",
    "cli",
    "control",
    "hosts/vhost_user",
    "report",
    "show.py",
    "sweep",
    "testing.py",
)
"""What no run depends on."""


@functools.cache
def version_of(policy: str) -> str:
    """Return a digest of this package and of the code of a policy, 16 characters.

    :param policy: a policy's name with its options.
    :raises PluginError: if there is none of that name.
    """
    digest = hashlib.sha256()
    for path in _sources(type(make_policy(policy)).__module__):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _sources(module: str) -> Iterator[Path]:
    """Yield every file that a run under a policy of this module is made of."""
    home = Path(balloon_plugin.__file__).parent
    edges = tuple(home / edge for edge in _EDGES)
    for path in _modules(home):
        if not any(path.is_relative_to(edge) for edge in edges):
            yield path
    # A policy of another package may use all of it.
    top = Path(sys.modules[module.partition(".")[0]].__file__ or "")
    if top.parent != home:
        yield from _modules(top.parent) if top.name == "__init__.py" else (top,)


def _modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))
