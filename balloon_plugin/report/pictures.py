"""Pictures as SVG, to stand in a page: they take their colours and fonts from it.

matplotlib draws with colours that stand for roles; they are then replaced by the page's
variables, so that one picture serves in light, in dark and on paper. Nothing here
decides what is shown.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from balloon_plugin.errors import HostError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ROLES", "Size", "picture"]

ROLES: Final = {
    "ink": "#010101",
    "muted": "#020202",
    "rule": "#030303",
    "paper": "#040404",
    "target": "#050505",
    "actual": "#060606",
    "host": "#070707",
    "good": "#080808",
    "buggy": "#090909",
    "undecided": "#0a0a0a",
}
"""A colour that nobody would choose for each role; ``--ROLE`` in the style sheet."""

Size: TypeAlias = tuple[str, float]
"""The class of a picture in the style sheet, and its width in inches."""

SIZES: Final[tuple[Size, ...]] = (("wide", 8.4), ("narrow", 3.6))
"""Each picture is drawn for a desk or paper and for a phone; the page shows one."""

_STYLE: Final[dict[Any, Any]] = {
    "axes.edgecolor": ROLES["rule"],
    "axes.labelcolor": ROLES["muted"],
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 7.5,
    "svg.fonttype": "none",
    "text.color": ROLES["ink"],
    "xtick.color": ROLES["muted"],
    "xtick.major.width": 0.6,
    "ytick.color": ROLES["muted"],
    "ytick.major.width": 0.6,
}

_NO_METADATA: Final = dict.fromkeys(("Creator", "Date", "Format", "Type"))

_NOT_OURS: Final = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)
"""What would reach out of the picture into the page, or says nothing."""


def picture(name: str, alt: str, draw: Callable[[Figure, Size], None]) -> str:
    """Return a picture as elements of HTML, once for each size.

    :param name: of the picture, different from all others in its page.
    :param alt: what it shows, for whoever cannot see it.
    :param draw: draws into an empty figure of a size, and may change its height.
    :raises HostError: if matplotlib is not installed.
    """
    return "\n".join(_drawn(f"{name}-{size[0]}", alt, draw, size) for size in SIZES)


def _drawn(
    name: str, alt: str, draw: Callable[[Figure, Size], None], size: Size
) -> str:
    try:
        import matplotlib as mpl  # noqa: PLC0415 - a third of a second, in an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise HostError(
            "a report needs matplotlib: pip install 'balloon-plugin[report]'"
        ) from error
    # The same picture gets the same names inside, whenever it is made.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(size[1], 2.0))
        draw(figure, size)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=_NO_METADATA, transparent=True)
    return _adopted(file.getvalue(), name, alt, size)


def _adopted(text: str, name: str, alt: str, size: Size) -> str:
    """Return an SVG file as an element that fits into a page."""
    _, opening, rest = _NOT_OURS.sub("", text).partition("<svg ")
    for role, colour in ROLES.items():
        rest = rest.replace(colour, f"var(--{role})")
    rest = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", rest)
    rest = re.sub(r'\bid="', f'id="{name}-', rest)
    rest = re.sub(r'(href="|url\()#', rf"\1#{name}-", rest)
    rest = re.sub(r'^(.*?)\bheight="[^"]*"', r"\1", rest, count=1, flags=re.DOTALL)
    rest = re.sub(r'^(.*?)\bwidth="[^"]*"', r"\1", rest, count=1, flags=re.DOTALL)
    label = html.escape(alt, quote=True)
    return f'{opening}class="{size[0]}" role="img" aria-label="{label}" {rest.strip()}'
