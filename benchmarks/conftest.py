"""One book for the whole run; it is printed at the end, and kept as markdown."""

from __future__ import annotations

from pathlib import Path

import pytest
from book import Book
from yardstick import Yardstick

PAGE = Path(".benchmarks/summary.md")
_book = pytest.StashKey()


def pytest_configure(config):
    config.stash[_book] = Book()


@pytest.fixture(scope="session")
def book(pytestconfig):
    """Give the book of this run."""
    return pytestconfig.stash[_book]


@pytest.fixture
def yardstick():
    """Give a new yardstick."""
    return Yardstick()


def pytest_terminal_summary(terminalreporter, config):
    page = config.stash[_book].page()
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page)
    terminalreporter.section(f"summary, also in {PAGE}")
    terminalreporter.write(page)
