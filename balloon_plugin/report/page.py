"""A page: what is in it, as frozen values, and how it becomes HTML.

One file with everything inside: no script, no font and no picture from elsewhere, which
its content security policy forbids as well.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from balloon_plugin import __version__
from balloon_plugin.errors import HostError

__all__ = [
    "Cell",
    "Items",
    "Page",
    "Picture",
    "Section",
    "Table",
    "check",
    "render",
    "write",
]

_HERE: Final = files("balloon_plugin.report")


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    :ivar text: what is in it.
    :ivar note: what is below that, smaller: an interval, a unit.
    :ivar mood: ``good``, ``buggy`` (for bad) or nothing; never all that tells it.
    :ivar is_code: whether it is a command to be copied.
    """

    text: str
    note: str = ""
    mood: str = ""
    is_code: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    :ivar caption: what it shows.
    :ivar heads: of its columns.
    :ivar rows: cells; the first of each row is its head.
    :ivar form: ``figures`` if all columns but the first are figures, ``small`` for
        several beside one another, ``cards`` if on a phone each row stands alone.
    """

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    form: str = "figures"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture.

    :ivar caption: what it shows.
    :ivar svg: elements of HTML, as ``report.pictures.picture`` returns them.
    """

    caption: str
    svg: str


@dataclass(frozen=True, slots=True)
class Items:
    """A numbered list: what the numbers in a picture mean.

    :ivar title: of what.
    :ivar items: texts.
    """

    title: str
    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page.

    :ivar title: its heading.
    :ivar texts: paragraphs.
    :ivar blocks: tables, pictures and lists, in order.
    :ivar command: what reproduces it, if anything does.
    """

    title: str
    texts: Sequence[str] = ()
    blocks: Sequence[Table | Picture | Items] = ()
    command: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report.

    :ivar title: what it is about.
    :ivar about: what was looked at, a sentence or two.
    :ivar advice: what to do, in as few sentences as possible.
    :ivar reasons: why, and what would change it.
    :ivar command: the command that makes this page again.
    :ivar sections: the rest.
    """

    title: str
    about: str
    advice: Sequence[str]
    reasons: Sequence[str]
    command: str
    sections: Sequence[Section]


def render(page: Page) -> str:
    """Return a page as HTML.

    :raises HostError: if Jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: PLC0415 - in an extra
    except ImportError as error:
        raise HostError(
            "a report needs Jinja2: pip install 'balloon-plugin[report]'"
        ) from error
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["marked"] = _marked
    environment.tests["picture"] = lambda block: isinstance(block, Picture)
    environment.tests["table"] = lambda block: isinstance(block, Table)
    template = environment.from_string(_HERE.joinpath("page.html.jinja").read_text())
    style = _HERE.joinpath("style.css").read_text()
    return template.render(page=page, style=style, version=__version__) + "\n"


def _marked(text: str) -> str:
    """Return a text as HTML, with what is between backticks as code."""
    import markupsafe  # noqa: PLC0415 - Jinja2 brings it

    parts = str(markupsafe.escape(text)).split("`")
    coded = (
        f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts)
    )
    return markupsafe.Markup("".join(coded))  # noqa: S704 - escaped above


def check(path: Path) -> None:
    """See that a page can be written to a file, before the work for it is done.

    :raises HostError: if it cannot be written, or an extra is missing.
    """
    for package in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            message = f"a report needs {package}: pip install 'balloon-plugin[report]'"
            raise HostError(message)
    was_there = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise HostError(f"{path} cannot be written: {error.strerror}") from error
    if not was_there:
        path.unlink()


def write(path: Path, page: Page) -> None:
    """Write a page to a file.

    :raises HostError: if it cannot be written, or an extra is missing.
    """
    text = render(page)
    try:
        # A trace may bring a text that nothing can encode.
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise HostError(f"{path} cannot be written: {error.strerror}") from error
