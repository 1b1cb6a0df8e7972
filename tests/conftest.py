"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import pytest

from balloon_plugin.errors import HostError

T = TypeVar("T")


@pytest.fixture(scope="session")
def require_real():
    """Give what a real guest needs: ``kernel = require_real(find_kernel)``.

    Where ``find_kernel`` raises HostError, the test is skipped with its sentence, which
    says what to install. With BALLOON_REQUIRE_REAL=1 in the environment, as in
    continuous integration, it fails instead: there nothing may be left out.
    """

    def require(find: Callable[[], T]) -> T:
        try:
            return find()
        except HostError as error:
            if os.environ.get("BALLOON_REQUIRE_REAL") == "1":
                pytest.fail(f"BALLOON_REQUIRE_REAL=1, but {error}", pytrace=False)
            pytest.skip(str(error))

    return require
