"""What the control socket answers, in words for people.

Pure: answers of commands in, lines and cells out.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from balloon_plugin.control.statistics import SIZES
from balloon_plugin.layouts import PAGE_SIZE

__all__ = [
    "HEADS",
    "amount",
    "cells",
    "pages",
    "part",
    "statistics_lines",
    "status_lines",
    "style",
    "verdict_lines",
]

Answer: TypeAlias = dict[str, Any]

_UNITS: Final = tuple(
    (1 << 10 * power, f"{letter}iB")
    for power, letter in zip((6, 5, 4, 3, 2, 1), "EPTGMK", strict=True)
)
"""Up to what 64 bits can say: a driver may send any number."""


def amount(size: int) -> str:
    """Return a size in bytes as people say it, to four digits."""
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} B" if size else "0"


def _short(size: int) -> str:
    """Return a size in bytes for a narrow column, to three digits."""
    for unit, name in _UNITS:
        if size * 2048 >= unit * 1999:  # four digits would not do, after rounding
            return f"{size / unit:.3g}{name[0]}"
    return str(size)


def pages(count: int) -> str:
    """Return a number of 4 KiB pages as a size."""
    return amount(count * PAGE_SIZE)


# --- one guest ----------------------------------------------------------------------


def status_lines(status: Answer) -> list[tuple[str, str]]:
    """Return what a query shows, as titles and sentences."""
    lines = [
        ("memory", _memory(status)),
        ("target", _target(status)),
        ("balloon", _balloon(status)),
        ("policy", status["policy"]),
        ("verdict", _verdict(status["verdict"])),
        ("driver", _driver(status)),
        ("faults", _faults(status)),
        ("statistics", _statistics(status)),
    ]
    if status["inhibited"] is not None:
        lines.insert(3, ("inhibited", status["inhibited"]))
    if "split" in status:
        split = status["split"]
        lines.append(("chosen", f"by {split['shares']}, salt {split['salt']!r}"))
    lines += [("shadow", _shadow(shadow)) for shadow in status.get("shadows", ())]
    return lines


def _shadow(shadow: Answer) -> str:
    """Say what a policy that looks on makes of the driver, and what that is worth."""
    if shadow["dropped"]:
        return f"{shadow['policy']}: looks on no more, {shadow['dropped']}"
    text = f"{shadow['policy']}: {shadow['verdict']} ({shadow['state']})"
    if shadow["diverges_from"] is not None:
        text += f", acts otherwise from event {shadow['diverges_from']} on"
    if shadow["guesses_from"] is not None:
        text += f", a guess since {shadow['guesses_from']}: {shadow['guesses_why']}"
    return text


def _memory(status: Answer) -> str:
    if not status["ram"]:
        return "not known before a front end connects"
    shown = status["actual"] if status["accepted"] else 0
    ram = status["ram"]
    return f"{pages(ram)}, of which the guest has {pages(ram - shown)}"


def _target(status: Answer) -> str:
    gate = status["gate"]
    text = f"{pages(status['requested'])} in the balloon"
    if status["advertised"] != status["requested"]:
        text += f"; the driver is shown {pages(status['advertised'])}"
    if gate["targets"] != "accepted":
        text += f"; targets are {gate['targets']}: {gate['reason']}"
    return text


def _balloon(status: Answer) -> str:
    text = (
        f"{pages(status['actual'])} by the driver's word, "
        f"{pages(status['reclaimed'])} given back to the host"
    )
    if status["actual_clamped"]:
        text += "; it said more than it has"
    return text


def _verdict(verdict: Answer) -> str:
    defects = f"; {', '.join(verdict['defects'])}" if verdict["defects"] else ""
    return f"{verdict['judgement']} ({verdict['state']}){defects}"


def _driver(status: Answer) -> str:
    if not status["driver"]:
        return "none has shown itself"
    if status["features"] is None:
        return "is there; has accepted no features yet"
    return f"is there; accepted features {status['features']:#x}"


def _faults(status: Answer) -> str:
    if not status["faults"]:
        return "none"
    return f"{status['faults']}; the last: {status['last_fault']}"


def _statistics(status: Answer) -> str:
    every = status["stats_interval"]
    asked = f"asked for every {every} s" if every else "not asked for"
    if status["stats"] is None:
        return f"{asked}; none have come"
    return f"{asked}; the newest are {status['stats']['age']:.0f} s old"


def statistics_lines(status: Answer) -> list[tuple[str, str]]:
    """Return the statistics of a guest and their age; what was not sent is left out."""
    sent = status["stats"]["values"] if status["stats"] else {}
    return [
        ("statistics", _statistics(status)),
        *((_title(name), _statistic(name, value)) for name, value in sent.items()),
    ]


def _title(name: str) -> str:
    return name.removeprefix("stat-").replace("-", " ")


def _statistic(name: str, value: int) -> str:
    return amount(value) if name in SIZES else str(value)


def verdict_lines(status: Answer) -> list[tuple[str, str]]:
    """Return the verdict on a driver with its evidence, oldest first."""
    verdict = status["verdict"]
    return [
        ("policy", status["policy"]),
        ("verdict", _verdict(verdict)),
        *((each["event"], each["shows"]) for each in verdict["evidence"]),
    ]


def part(status: Answer, view: str) -> Answer:
    """Return what of an answer is shown by ``query``, ``stats`` or ``verdict``."""
    if view == "query":
        return status
    part: Answer = status["verdict"]
    if view == "stats":
        part = status["stats"] or {"age": None, "values": {}}
        part["interval"] = status["stats_interval"]
    return {"id": status["id"]} | part


# --- many guests --------------------------------------------------------------------

HEADS: Final = (
    "guest",
    "memory",
    "target",
    "actual",
    "given back",
    "free",
    "age",
    "verdict",
)
"""What :func:`cells` are; ``age`` is that of the statistic before it."""

_STYLES: Final = {"good": "green", "buggy": "red"}


def cells(status: Answer) -> tuple[str, ...]:
    """Return what is most to know of a guest, for the columns :data:`HEADS`."""
    sizes = ("ram", "requested", "actual", "reclaimed")
    return (
        status["id"],
        *(_short(status[name] * PAGE_SIZE) for name in sizes),
        *_free(status["stats"]),
        _verdict(status["verdict"]) if status["driver"] else "no driver",
    )


def _free(stats: Answer | None) -> tuple[str, str]:
    """Return how much memory is free in the guest, and how old that number is."""
    if stats is None or _FREE not in stats["values"]:
        return "-", "-"
    return _short(stats["values"][_FREE]), _age(stats["age"])


_FREE: Final = "stat-free-memory"
_TIMES: Final = ((86400, "d"), (3600, "h"), (60, "m"))


def _age(seconds: float) -> str:
    for unit, name in _TIMES:
        if seconds >= unit:
            return f"{seconds // unit:.0f}{name}"
    return f"{seconds:.0f}s"


def style(status: Answer) -> str:
    """Return the colour of a guest's line."""
    return _STYLES.get(status["verdict"]["judgement"], "")
