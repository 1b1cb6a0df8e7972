"""A guest's thread of execution as a generator.

Code of a driver reads like the kernel's, from top to bottom, and yields after each
thing that it does which a host could see: ``True`` when something was done, ``False``
when it waits and nothing was. Whoever runs it decides what happens in between.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

__all__ = ["Steps"]

_T = TypeVar("_T")

Steps: TypeAlias = Generator[bool, None, _T]
"""A piece of a thread: it yields after each step and returns a result."""
