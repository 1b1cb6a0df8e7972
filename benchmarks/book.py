"""The book in which a run of the benchmarks is kept, and the page that it ends as."""

from __future__ import annotations

from yardstick import REFERENCE

AIMS = "aim", "at most", "found", "hook call", "scaled", "met"
INFLATION = (
    "believed by",
    "pages",
    "ours, ns/page",
    "page by page, ns/page",
    "merged, ns/page",
    "ours : page by page",
    "own share, us",
)
INTRO = f"""\
Times are the least of many rounds, in processor time. `hook call` is the least that a
hook call took between those rounds, in nanoseconds. Where the aims were set it took
{REFERENCE * 1e9:,.0f}; `scaled` is what was found, at that speed.\
"""


class Book:
    """Tables of figures, and aims that were met or not."""

    def __init__(self):
        self._tables = {}
        self._aims = []

    def row(self, title, head, *cells):
        """Add a row to a table."""
        self._tables.setdefault(title, [head]).append(cells)

    def inflation(self, title, policy, pattern, contest):
        """Add what a contest came to."""
        contestants = contest.ours, contest.page_by_page, contest.merged
        each = [f"{one.usual / contest.pages * 1e9:,.0f}" for one in contestants]
        ratio = f"**{contest.ours.usual / contest.page_by_page.usual:.2f}**"
        own = f"{contest.own.usual * 1e6:,.0f}"
        self.row(title, INFLATION, policy, pattern, *each, ratio, own)

    def time(self, what, seconds, most, yardstick):
        """Note an aim for a time, and what was found.

        :param most: the aim as a number and its unit.
        """
        most, unit = most
        found = seconds * {"ms": 1e3, "us": 1e6}[unit]
        scaled = found * REFERENCE / yardstick.best
        met = "yes" if found <= most else "scaled" if scaled <= most else "**no**"
        speed, scaled = f"{yardstick.best * 1e9:,.0f}", f"{scaled:.3g}"
        self._aims.append((what, f"{most} {unit}", f"{found:.3g}", speed, scaled, met))

    def size(self, what, found, most, unit):
        """Note an aim for something that does not depend on the machine's speed."""
        met = "yes" if found <= most else "**no**"
        self._aims.append((what, f"{most} {unit}", f"{found:.3g}", "", "", met))

    def page(self):
        """Return everything as markdown."""
        parts = [INTRO, _table([AIMS, *self._aims])]
        parts += [f"## {title}\n\n{_table(t)}" for title, t in self._tables.items()]
        return "\n\n".join(parts) + "\n"


def _table(rows):
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
