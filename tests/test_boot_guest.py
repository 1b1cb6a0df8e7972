from __future__ import annotations

from pathlib import Path

import pytest

from balloon_plugin.boot import init
from balloon_plugin.boot.guest import GuestReport, find_trouble, parse_report

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


@pytest.mark.parametrize(
    ("line", "trouble"),
    [
        (
            "[    1.977995] Unable to handle kernel paging request at address 0",
            "oopsed: Unable to handle kernel paging request at address 0",
        ),
        (
            "[   12.985581] Internal error: Oops: 0000000096000007 [#1] SMP",
            "oopsed: Internal error: Oops: 0000000096000007 [#1] SMP",
        ),
        ("BUG: Bad page state in process init", "oopsed: BUG: Bad page state in "),
        ("Oops: Kernel access of bad area, sig: 11", "oopsed: Oops: Kernel access of "),
        ("kernel BUG at mm/page_alloc.c:1", "oopsed: kernel BUG at mm/page_alloc.c:1"),
        ("[    9.1] Kernel panic - not syncing: Oops: x", "panicked: Kernel panic - "),
    ],
)
def test_what_befalls_a_kernel_is_recognised(line, trouble):
    assert find_trouble(line).startswith(f"the guest's kernel {trouble}")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[    0.000000] Linux version 6.12.107",
        "[    1.0] WARNING: CPU: 0 PID: 1 at mm/x.c",
        "GUEST read /proc/kmsg: Kernel panic",
        LINE,
    ],
)
def test_all_else_is_no_trouble(line):
    assert find_trouble(line) is None


COMMANDS = ("insmod", "rmmod", "device", "alloc", "free", "reboot", "poweroff")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_init_of_ours_speaks_the_language(command):
    other = Path(__file__).with_name("guests") / "init.c"

    assert f"\n    {command}) ".encode() in init._INIT
    assert f'!strcmp(command, "{command}")' in other.read_text()
