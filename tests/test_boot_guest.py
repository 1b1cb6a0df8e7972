from __future__ import annotations

import pytest

from balloon_plugin.boot.guest import GuestReport, parse_report

LINE = "GUEST up=1.38 MemTotal=498048 MemFree=420224 MemAvailable=416192 infl=256/16"


def test_a_report_is_read_in_bytes_and_pages():
    report = parse_report(LINE)

    assert report == GuestReport(498048 * 1024, 420224 * 1024, 256, 16)


def test_a_report_tells_of_memory_in_use():
    report = parse_report(f"{LINE} check=4090/6")

    assert (report.kept, report.lost) == (4090, 6)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "GUEST ready up=1.52",
        "[    0.000000] Linux version 6.1.176",
        "GUEST up=1.38 MemTo[    1.380000] something else",
    ],
)
def test_other_lines_are_none(line):
    assert parse_report(line) is None
