"""Pages: everything inside, nothing from elsewhere, and what it says in words."""

from __future__ import annotations

import re
import sys
from collections import Counter
from html.parser import HTMLParser

import pytest
from fleets import result

from balloon_plugin.compare import compare
from balloon_plugin.errors import HostError
from balloon_plugin.guests.profiles import find
from balloon_plugin.report import (
    Page,
    Section,
    of_rows,
    rows_page,
    sweep_page,
    write,
)
from balloon_plugin.report.page import Cell, Table, check, render
from balloon_plugin.report.pictures import ROLES, picture
from balloon_plugin.sweep import decide

FINE, HARMS, REFUSES = {}, {"harm": 16, "right": False}, {"usable": False}
WORDS = ["balloon-plugin", "sweep", "--html", "my report.html"]


class Reader(HTMLParser):
    """Takes a page apart, and insists that what is opened is closed."""

    VOID = ("meta", "br", "link", "path", "use", "rect")

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._open = [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def swept():
    found = result(
        ["careless", "none"],
        ("old", 10, (HARMS, REFUSES)),
        ("new", 90, (FINE, FINE)),
    )
    found = type(found)(
        found.population,
        found.runs,
        found.seed,
        ("probe", "none"),
        found.outcomes,
    )
    return render(sweep_page(found, decide(found), WORDS))


@pytest.fixture(scope="module")
def compared():
    guests = [find("linux-3.3-be-64k"), find("linux-3.4-be-64k")]
    rows = list(compare(guests, ["probe", "evidence"]))
    return render(rows_page(rows, ["balloon-plugin", "compare"]))


@pytest.fixture(params=["swept", "compared"])
def page(request):
    return request.getfixturevalue(request.param)


def test_what_is_opened_is_closed(page):
    assert Reader(page).named("html") == [{"lang": "en"}]


def test_nothing_comes_from_elsewhere_and_nothing_runs(page):
    reader = Reader(page)

    assert not {"script", "link", "img", "iframe", "object"} & {
        tag for tag, _ in reader.tags
    }
    assert not re.search(r"@import|url\((?!#)|\son\w+=", page)
    links = [
        value
        for _, attributes in reader.tags
        for name, value in attributes.items()
        if name in ("href", "src", "xlink:href")
    ]
    assert all(link.startswith("#") for link in links)
    (policy,) = [meta for meta in reader.named("meta") if "http-equiv" in meta]
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_names_inside_pictures_are_their_own_and_found(page):
    reader = Reader(page)
    names = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    used = re.findall(r'(?:href="|url\()#([^")]+)', page)

    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert used
    assert set(used) <= set(names)


def test_every_picture_is_told_in_words(page):
    pictures = Reader(page).named("svg")

    assert pictures
    assert {each["role"] for each in pictures} == {"img"}
    assert all(len(each["aria-label"]) > 60 for each in pictures)
    assert Counter(each["class"] for each in pictures)["wide"] == len(pictures) / 2


def test_every_table_has_a_caption_and_heads(page):
    reader = Reader(page)

    tables = reader.named("table")
    assert len(tables) == len(reader.named("caption"))
    scopes = Counter(head["scope"] for head in reader.named("th"))
    assert scopes["col"] > scopes["row"] / 4 > 0


def test_colours_are_the_pages_own(page):
    assert not [colour for colour in ROLES.values() if colour in page]
    used = set(re.findall(r"var\((--\w+)\)", page))
    light, dark, paper = page.split(":root {")[1:]
    assert used <= set(re.findall(r"(--\w+):", light))
    colours = used - {"--sans", "--mono"}
    assert colours <= set(re.findall(r"(--\w+):", dark.partition("}")[0]))
    assert colours <= set(re.findall(r"(--\w+):", paper.partition("}")[0]))


def test_the_same_page_is_made_of_the_same_bytes(swept):
    assert not re.search(r"20\d\d-\d\d-\d\dT", swept)
    again = picture("x", "alt", lambda figure, _: figure.add_axes((0, 0, 1, 1)))
    assert again == picture("x", "alt", lambda figure, _: figure.add_axes((0, 0, 1, 1)))


def test_the_top_of_a_sweep_says_what_to_do(swept):
    text = Reader(swept).text

    assert text.index("unless one harmed guest is worth more to you than") < 700
    assert "Which policy for made up?" in text
    assert "balloon-plugin sweep --html 'my report.html'" in text


def test_a_sweep_shows_rates_with_intervals_and_what_went_wrong(swept):
    text = Reader(swept).text

    assert "10.0 5.5 to 17.4" in text
    for title in ("What each policy did", "Class by class", "Truth and verdict"):
        assert title in text
    assert "The most frequent guest that probe harms; 10.00% of those drawn." in text
    assert "balloon-plugin compare --guest linux-3.4-be-4k --circumstance usual" in text
    assert "--trace" in text


def test_a_comparison_shows_each_guest_with_its_evidence(compared):
    reader = Reader(compared)

    assert "2 guests under 2 policies" in reader.text
    assert "`" not in reader.text
    assert "Evidence of probe" in reader.text
    assert "step 12: actual = 256: Buggy guest detected" in reader.text
    commands = re.findall(r"balloon-plugin compare --guest \S+ .*?--trace", reader.text)
    assert len(commands) == 4


def test_a_picture_in_words_says_what_can_be_seen_in_it(compared):
    labels = [each["aria-label"] for each in Reader(compared).named("svg")]

    (label,) = {one for one in labels if one.startswith("linux-3.3-be-64k")}
    assert "Under probe it was TESTING, then BUGGY; asked for 1024 pages: ref" in label
    assert "buggy, right; 272 pages harmed" in label


def test_many_guests_are_listed_and_the_worst_are_drawn():
    guests = [find("linux-3.3-be-64k"), find("linux-3.4-be-64k")]
    rows = list(compare(guests, ["probe"])) * 300

    reader = Reader(render(rows_page(rows, ["x"])))

    headings = [text for text in reader.texts if "be-64k" in text]
    assert "linux-3.3-be-64k" in headings
    assert len(reader.named("svg")) == 4


def test_of_very_many_only_the_worst_are_told(monkeypatch):
    monkeypatch.setattr(of_rows, "DRAWN", 1)
    monkeypatch.setattr(of_rows, "LISTED", 1)
    guests = [find("linux-3.3-be-64k"), find("linux-3.4-be-64k")]

    page = rows_page(list(compare(guests, ["probe"])), ["x"])

    titles = [section.title for section in page.sections]
    assert "linux-3.3-be-64k" in titles
    assert "linux-3.4-be-64k" not in titles
    (table,) = page.sections[-2].blocks
    assert [row[0].text for row in table.rows] == ["linux-3.3-be-64k"]


def test_whatever_is_told_is_text():
    evil = "<script>alert('`x`')</script>"
    table = Table(evil, [evil], [[Cell(evil, evil)], [Cell(evil, is_code=True)]])
    page = Page(
        evil, evil, [evil], [evil], evil, [Section(evil, [evil], [table], evil)]
    )

    reader = Reader(render(page))

    assert reader.named("script") == []
    assert reader.text.count("alert('") >= 10


def test_what_a_picture_is_called_is_text():
    drawn = picture("x", 'a "b" <c>', lambda figure, _: figure.add_axes((0, 0, 1, 1)))

    assert {each["aria-label"] for each in Reader(drawn).named("svg")} == {'a "b" <c>'}


def test_a_page_is_written_to_a_file(tmp_path):
    page = Page("title", "", [], [], "x", [])

    write(tmp_path / "page.html", page)

    assert (tmp_path / "page.html").read_text() == render(page)


@pytest.mark.parametrize("before", [None, "older"])
def test_to_check_a_file_leaves_it_as_it_was(tmp_path, before):
    path = tmp_path / "page.html"
    if before:
        path.write_text(before)

    check(path)

    assert (path.read_text() if path.exists() else None) == before


def test_a_file_that_cannot_be_written_is_found_before_the_work(tmp_path):
    with pytest.raises(HostError, match="cannot be written: No such file"):
        check(tmp_path / "no" / "page.html")


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_that_the_extra_is_missing_is_found_before_the_work(
    tmp_path, monkeypatch, package
):
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(
        HostError, match=rf"needs {package}: .*balloon-plugin\[report\]"
    ):
        check(tmp_path / "page.html")


def test_a_page_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(HostError, match="cannot be written: Is a directory"):
        write(tmp_path, Page("title", "", [], [], "x", []))


@pytest.mark.parametrize(
    ("module", "name"), [("jinja2", "Jinja2"), ("matplotlib",) * 2]
)
def test_without_the_extra_it_is_said_what_to_install(monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(HostError, match=rf"needs {name}: pip install .*\[report\]"):
        render(Page(picture("x", "", lambda *_: None), "", [], [], "x", []))


def test_one_policy_is_compared_with_nothing():
    found = result(["none"], ("a", 9, [FINE]))

    page = sweep_page(found, decide(found), WORDS)

    assert "Only `none` was run" in page.advice[0]
    assert not [each for each in page.sections if each.title.startswith("Against")]
