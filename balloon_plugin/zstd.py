"""Zstandard: Python has it from 3.14 on, and a package of an extra has it before."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

from balloon_plugin.errors import HostError

__all__ = ["NAME", "find_zstd"]

NAME: Final = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
"""Of the module."""


def find_zstd() -> Any:
    """Return the module.

    :raises HostError: if it is missing; says what to install.
    """
    try:
        return importlib.import_module(NAME)
    except ImportError as error:
        raise HostError(
            "what is compressed with zstd needs a package: "
            "pip install 'balloon-plugin[trace]'"
        ) from error
