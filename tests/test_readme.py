"""The README tells the truth: its code runs, its table is what is printed."""

from __future__ import annotations

import re
from pathlib import Path

from balloon_plugin.cli import main

ROOT = Path(__file__).parents[1]

README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_host_in_a_few_lines_runs_and_prints_what_is_said(capsys):
    (code,) = blocks("python")

    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - it is our own

    assert capsys.readouterr().out == blocks("text")[-1]


def test_the_comparison_is_what_the_command_prints(capsys):
    table = blocks("text")[0].splitlines()

    main(["compare", "--guest", "linux-3.3-be-64k", "--guest", "linux-3.4-be-64k"])

    printed = capsys.readouterr().out.splitlines()
    shown = [
        line.split()[: len(row.split())]
        for row, line in zip(table, printed, strict=False)
    ]
    assert len(shown) == len(table)
    assert shown == [row.split() for row in table]


def test_its_pictures_are_there_and_told_in_words():
    pictures = re.findall(r'(?:src|srcset)="([^"]+)"', README)

    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)
    assert README.count("<img ") == README.count(" alt=")


def test_what_its_picture_says_is_what_the_documentation_says():
    (words,) = re.findall(r'alt="(.*?)"', README, re.DOTALL)
    price = re.findall(r"than (\d+) unusable balloons", " ".join(words.split()))

    page = (ROOT / "docs" / "sweep.md").read_text()
    assert price == re.findall(r"worth more to you than (\d+) \(", page)
