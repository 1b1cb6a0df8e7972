"""Reports in a real browser: nothing overflows, nothing is missing, all is quiet."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest
from fleets import result
from record_traces import path_of

from balloon_plugin.compare import compare
from balloon_plugin.errors import HostError
from balloon_plugin.guests.profiles import find
from balloon_plugin.replay import conclude, replay
from balloon_plugin.report import replay_page, rows_page, sweep_page
from balloon_plugin.report.page import render
from balloon_plugin.sweep import decide
from balloon_plugin.trace import decode, read

pytestmark = pytest.mark.real

VIEWS = [
    *(("sweep", width) for width in (360, 700, 1000, 1280)),
    *(("compare", width) for width in (360, 1280)),
    *(("replay", width) for width in (360, 1000)),
]

HARNESS = """\
<!doctype html>
<body>
<iframe style="border: 0; width: {width}px; height: 800px" srcdoc="{page}"></iframe>
<pre id="told"></pre>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  const seen = (each) => each.getClientRects().length > 0;
  const name = (each) => each.tagName + ": " + each.textContent.trim().slice(0, 60);
  const all = [...page.body.querySelectorAll("*")].filter(seen);
  const style = frame.contentWindow.getComputedStyle(page.body);
  document.getElementById("told").textContent = JSON.stringify({{
    width: root.scrollWidth,
    room: root.clientWidth,
    wide: all.filter((e) => e.getBoundingClientRect().right > root.clientWidth + 1)
      .map(name),
    cut: all.filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1)
      .filter((e) => !e.closest("svg, thead, span")).map(name),
    pictures: all.filter((e) => e.tagName == "svg")
      .map((e) => e.getBoundingClientRect().width),
    texts: page.body.innerText,
    drawn: [...page.querySelectorAll("svg text")].filter(seen)
      .map((e) => e.textContent),
    colours: [style.color, style.backgroundColor],
    strokes: [...page.querySelectorAll("svg path")]
      .map((e) => frame.contentWindow.getComputedStyle(e).stroke)
      .filter((stroke) => stroke != "none"),
  }});
}};
</script>
"""
"""Looks at a page in a frame of some width, as on a screen of that width."""


def find_chromium():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    raise HostError("no Chromium here: install Debian's chromium")


@pytest.fixture(scope="module")
def browse(require_real, tmp_path_factory):
    """Open a page at a width; return what is seen, and what the console says."""
    chromium = require_real(find_chromium)
    folder = tmp_path_factory.mktemp("browser")

    def browse(page, width, *options):
        path = folder / "harness.html"
        path.write_text(HARNESS.format(width=width, page=html.escape(page)))
        done = subprocess.run(  # noqa: S603 - found above
            [
                *(chromium, "--headless", "--no-sandbox", "--disable-gpu"),
                *("--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"),
                *("--window-size=1400,900", "--virtual-time-budget=5000"),
                *("--dump-dom", *options, path.as_uri()),
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        (told,) = re.findall(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return json.loads(html.unescape(told)), console

    return browse


@pytest.fixture(scope="module")
def pages():
    harms = {"harm": 16, "right": False, "taken": 123_456}
    groups = (
        ("old", 10_001, (harms, {"usable": False, "taken": 98_765})),
        ("new", 89_999, ({"taken": 77}, {})),
    )
    swept = result(["probe", "feature-bit"], *groups)
    guests = [find("linux-3.3-be-64k"), find("linux-3.4-be-64k")]
    rows = list(compare(guests, ["none", "probe", "feature-bit", "evidence"]))
    return {
        "sweep": render(sweep_page(swept, decide(swept), ["balloon-plugin", "sweep"])),
        "compare": render(rows_page(rows, ["balloon-plugin", "compare"])),
        "replay": render(replay_page(*recorded(), ["balloon-plugin", "replay"])),
    }


def recorded():
    header, moments = decode(read(path_of("arm64be-64k.stock.evidence")))
    known, replays = list(moments), []
    for policy in ("probe", "feature-bit", "evidence"):
        steps = list(replay(header, known, policy))
        replays.append((conclude(header, steps), steps))
    return header, replays


@pytest.mark.parametrize(("name", "width"), VIEWS)
def test_a_report_fits_and_is_whole(browse, pages, name, width):
    seen, console = browse(pages[name], width)

    assert console == []
    assert seen["width"] <= seen["room"] <= width
    assert (seen["wide"], seen["cut"]) == ([], [])
    # Of each picture that size which belongs to this width.
    assert len(seen["pictures"]) == pages[name].count("<svg ") / 2
    assert min(seen["pictures"]) > 0.8 * min(width, 1000)
    assert "actual" in seen["texts"]
    assert {"probe", "feature-bit"} <= {*seen["drawn"]}


def test_in_the_dark_a_report_is_dark_with_its_pictures(browse, pages):
    dark = "--blink-settings=preferredColorScheme=0"

    light, _ = browse(pages["compare"], 1280, "--blink-settings=preferredColorScheme=1")
    shade, console = browse(pages["compare"], 1280, dark)

    assert console == []
    ink, paper = map(brightness, light["colours"])
    chalk, board = map(brightness, shade["colours"])
    assert paper - ink > 150
    assert chalk - board > 150
    assert set(light["strokes"]).isdisjoint(shade["strokes"])


def brightness(colour):
    return max(map(int, re.findall(r"\d+", colour)[:3]))


def test_on_paper_a_report_has_pages(require_real, pages, tmp_path):
    chromium = require_real(find_chromium)
    (tmp_path / "page.html").write_text(pages["compare"])

    subprocess.run(  # noqa: S603 - found above
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--no-pdf-header-footer", f"--user-data-dir={tmp_path / 'profile'}"),
            f"--print-to-pdf={tmp_path / 'page.pdf'}",
            (tmp_path / "page.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )

    printed = (tmp_path / "page.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 12
