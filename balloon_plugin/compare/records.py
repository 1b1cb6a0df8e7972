"""Records as CSV: one line each, for spreadsheets and other machines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["as_csv"]


def as_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """Return records that all have the same keys, 1 or more, as CSV.

    Several texts in one value are joined by ``|``; what is not known is empty.
    """
    lines = list(records)
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0], lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({key: _cell(value) for key, value in line.items()})
    return text.getvalue()


def _cell(value: object) -> object:
    return " | ".join(value) if isinstance(value, tuple | list) else value
