"""The pictures of a report: timelines above, and rates beside one another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from balloon_plugin.events import Answer
from balloon_plugin.report.axis import Axis
from balloon_plugin.report.pictures import ROLES, Size
from balloon_plugin.report.timeline import Ask, Span, Timeline
from balloon_plugin.sweep.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_rates", "draw_timelines", "numbered"]

_LINES: Final = 1.0
_STATES: Final = 0.2
"""Inches that lines and states of one policy are high."""

_GAP: Final = 0.48
_TOP: Final = 0.55
_BOTTOM: Final = 0.42

_LETTER: Final = 0.062
"""Inches that a letter of a state's name is wide."""

_SMALL_LETTER: Final = 0.05
"""Inches that a letter of what was asked for is wide."""

_PAGES: Final = (0, 16, 256, 4096, 1 << 16, 1 << 20, 1 << 24, 1 << 28)
_LABELS: Final = ("0", "16", "256", "4 Ki", "64 Ki", "1 Mi", "16 Mi", "256 Mi")
"""Marks of the axis of pages, which is logarithmic above the first."""


# --- timelines ----------------------------------------------------------------------


def draw_timelines(timelines: Sequence[Timeline], figure: Figure, size: Size) -> None:
    """Draw what several policies did to one guest, above one another."""
    each = _LINES + _STATES + _GAP
    height = _TOP + each * len(timelines) + _BOTTOM - _GAP
    figure.set_size_inches(size[1], height)
    left, width = 0.42 / size[1], 1 - 0.5 / size[1]
    axis, most = Axis(timelines), _most(timelines)
    for at, timeline in enumerate(timelines):
        top = height - _TOP - at * each
        lines = figure.add_axes((left, (top - _LINES) / height, width, _LINES / height))
        states = figure.add_axes(
            (left, (top - _LINES - _STATES) / height, width, _STATES / height),
            sharex=lines,
        )
        _draw_lines(lines, timeline, axis, most)
        _draw_asks(lines, timeline, axis, size)
        _draw_states(states, timeline, axis, width * size[1])
        last = timeline is timelines[-1]
        _label_time(states, axis, timeline.unit if last else "", size)
    _draw_legend(figure, size)


def _most(timelines: Sequence[Timeline]) -> int:
    levels = itertools.chain.from_iterable(each.levels for each in timelines)
    return max(max(each.target, each.actual, each.reclaimed) for each in levels)


def _draw_lines(axes: Axes, timeline: Timeline, axis: Axis, most: int) -> None:
    x = [axis.place(timeline, each.at) for each in timeline.levels] + [axis.end]
    levels = [*timeline.levels, timeline.levels[-1]]
    reclaimed = [each.reclaimed for each in levels]
    axes.fill_between(x, reclaimed, step="post", color=ROLES["host"], alpha=0.3, lw=0)
    for name, style, thick in (("target", (0, (4, 2)), 1.1), ("actual", "-", 1.3)):
        y = [getattr(each, name) for each in levels]
        axes.step(x, y, where="post", color=ROLES[name], ls=style, lw=thick)
    _scale(axes, axis, most)
    axes.set_title(timeline.policy, loc="left", fontsize=8.5, weight="bold", pad=14)
    axes.set_title(
        timeline.outcome, loc="right", fontsize=7.5, color=ROLES["muted"], pad=14
    )
    for number, at in numbered(timeline):
        _draw_number(axes, axis.place(timeline, at), number)


def _scale(axes: Axes, axis: Axis, most: int) -> None:
    axes.set_xlim(0, axis.end)
    axes.set_yscale("symlog", linthresh=16, linscale=0.6, base=16)
    axes.set_ylim(0, max(32, most) * 10)
    marks = [
        (pages, label)
        for pages, label in zip(_PAGES, _LABELS, strict=True)
        if pages <= max(32, most) * 1.5
    ]
    # Of many every second one.
    marks = marks[:: 2 if len(marks) > 5 else 1]  # noqa: PLR2004
    axes.set_yticks([pages for pages, _ in marks], [label for _, label in marks])
    axes.minorticks_off()
    axes.tick_params(length=2, labelsize=6.5, pad=2)
    axes.tick_params(axis="x", bottom=False, labelbottom=False)
    axes.grid(axis="y", color=ROLES["rule"], lw=0.4, alpha=0.6)
    axes.set_axisbelow(True)
    for start, _ in axis.phases[1:]:
        axes.axvline(start, color=ROLES["rule"], lw=0.8)


def _draw_asks(axes: Axes, timeline: Timeline, axis: Axis, size: Size) -> None:
    """Mark where the user asked; words only where they do not run into others."""
    free = 0.0
    for ask in timeline.asks:
        x, text = axis.place(timeline, ask.at), _asked(ask, size)
        axes.axvline(x, color=ROLES["muted"], lw=0.7, ls=":")
        if x >= free:
            _write_ask(axes, x, text)
            free = x + len(text) * _SMALL_LETTER / size[1] * axis.end


def _asked(ask: Ask, size: Size) -> str:
    text = f"asked for {ask.num_pages}" if size[0] == "wide" else str(ask.num_pages)
    return text if ask.answer is Answer.ACCEPTED else f"{text}: {ask.answer.value}"


def _write_ask(axes: Axes, x: float, text: str) -> None:
    axes.annotate(
        text,
        (x, 1),
        (2.5, -2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        fontsize=6,
        color=ROLES["muted"],
    )


def _draw_number(axes: Axes, x: float, number: str) -> None:
    """Mark where evidence came; the page says under this number what it was."""
    axes.annotate(
        number,
        (x, 1),
        (0, 5.5),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=6,
        color=ROLES["paper"],
        bbox={"boxstyle": "round,pad=0.22", "fc": ROLES["ink"], "lw": 0},
    )


def numbered(timeline: Timeline) -> list[tuple[str, float]]:
    """Return the numbers of findings, ``3`` or ``1-2``, where they came together."""
    found = enumerate(timeline.findings, 1)
    groups = itertools.groupby(found, lambda item: item[1].at)
    numbers = ((at, [number for number, _ in group]) for at, group in groups)
    return [
        (f"{first}-{last}" if first < last else str(first), at)
        for at, (first, *_, last) in (
            (at, [*group, group[-1]]) for at, group in numbers
        )
    ]


def _draw_states(axes: Axes, timeline: Timeline, axis: Axis, inches: float) -> None:
    starts = [axis.place(timeline, span.at) for span in timeline.spans]
    ends = [*starts[1:], axis.end]
    for span, start, end in zip(timeline.spans, starts, ends, strict=True):
        role = span.judgement.value
        axes.axvspan(start, end, color=ROLES[role], alpha=0.28, lw=0)
        axes.axvline(start, color=ROLES[role], lw=1)
        if _fits(span, (end - start) / axis.end * inches):
            axes.text((start + end) / 2, 0.46, span.state, ha="center", va="center")
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _fits(span: Span, inches: float) -> bool:
    return len(span.state) * _LETTER + 0.06 < inches


def _label_time(axes: Axes, axis: Axis, unit: str, size: Size) -> None:
    axes.tick_params(axis="x", length=2, labelsize=6.5, pad=2, labelbottom=bool(unit))
    axes.set_xticks([at for at, _ in axis.ticks], [text for _, text in axis.ticks])
    if not unit:
        axes.tick_params(axis="x", bottom=False)
        return
    for start, name in axis.phases:
        axes.annotate(
            name[size[0]],
            (start + 0.5, 0),
            (0, -14),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=7,
        )


def _draw_legend(figure: Figure, size: Size) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415 - with the picture only
    from matplotlib.patches import Patch  # noqa: PLC0415

    handles: list[Any] = [
        Line2D([], [], color=ROLES["target"], ls=(0, (4, 2)), label="target shown"),
        Line2D([], [], color=ROLES["actual"], label="actual"),
        Patch(color=ROLES["host"], alpha=0.3, lw=0, label="held by the host"),
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=3,
        frameon=False,
        fontsize=7,
        borderaxespad=0.1,
        columnspacing=1.2,
        handlelength=1.8 if size[0] == "wide" else 1.4,
    )


# --- rates --------------------------------------------------------------------------


def draw_rates(
    panels: Sequence[tuple[str, Sequence[tuple[str, Estimate]]]],
    figure: Figure,
    size: Size,
) -> None:
    """Draw shares of several policies with their intervals, one panel for each."""
    rows = len(panels[0][1])
    across = len(panels) if size[0] == "wide" else 1
    down = -(-len(panels) // across)
    figure.set_size_inches(size[1], down * (0.5 + 0.21 * rows) + 0.1)
    grid = figure.subplots(down, across, squeeze=False)
    for at, (axes, (title, shares)) in enumerate(zip(grid.flat, panels, strict=True)):
        _draw_shares(axes, title, shares, named=across == 1 or at == 0)
    figure.subplots_adjust(
        left=0.13 if across > 1 else 0.24,
        right=0.98,
        top=1 - 0.26 / figure.get_figheight(),
        bottom=0.26 / figure.get_figheight(),
        wspace=0.12,
        hspace=0.75,
    )


def _draw_shares(
    axes: Axes, title: str, shares: Sequence[tuple[str, Estimate]], *, named: bool
) -> None:
    for row, (_, estimate) in enumerate(shares):
        value, low, high = (
            100 * each for each in (estimate.value, estimate.low, estimate.high)
        )
        axes.plot([low, high], [row, row], color=ROLES["actual"], lw=1.6)
        axes.plot([value], [row], "o", color=ROLES["ink"], ms=3.4)
    axes.set_title(title, loc="left", fontsize=8, weight="bold")
    axes.set_xlim(-2, 102)
    axes.set_ylim(len(shares) - 0.4, -0.6)
    axes.set_xticks([0, 50, 100], ["0", "50", "100 %"])
    axes.set_yticks(range(len(shares)), [name if named else "" for name, _ in shares])
    axes.tick_params(length=2, labelsize=7, pad=2)
    axes.tick_params(axis="y", length=0, labelcolor=ROLES["ink"])
    axes.grid(axis="x", color=ROLES["rule"], lw=0.4, alpha=0.6)
    axes.spines["left"].set_visible(False)
