"""The command line as its users meet it: what all commands have in common."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import command, names_in

from balloon_plugin import __version__
from balloon_plugin.cli import compare, parsing

# --- words that make no sense -------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "the following arguments are required: COMMAND; see 'balloon-plugin --h"),
        ("boot", "the following arguments are required: MACHINE; see "),
        ("ctl", "the following arguments are required: CONTROL, WHAT; see "),
        ("serve", "the following arguments are required: --socket; see "),
        ("dance", "argument COMMAND: invalid choice: 'dance' (choose from "),
        ("policies --all", "unrecognized arguments: --all; see "),
        ("boot uml --target", "argument --target: expected one argument; see "),
        ("boot uml --timeout soon", "argument --timeout: 'soon' is no time: write sec"),
        ("boot uml --timeout nan", "argument --timeout: 'nan' is no time: write sec"),
        ("boot uml --timeout 0", "argument --timeout: '0' is no time: write seconds"),
        ("serve --socket x --metrics=web", "argument --metrics: 'web' is no port: "),
        (
            "serve --socket x --metrics=:70000",
            "argument --metrics: ':70000' is no port",
        ),
        ("serve --socket x --byte-order=up", "argument --byte-order: invalid choice"),
        ("serve --socket x --page-size=1K", "argument --page-size: '1K' is no size of"),
        ("serve --socket x --page-size=5K", "argument --page-size: '5K' is no size of"),
    ],
)
def test_words_that_make_no_sense_are_refused(refused, words, sentence):
    assert refused(*words.split()).startswith(sentence)


@pytest.mark.parametrize("size", ["", "-1", "1.5G", "12X", "1 M", "M", "0x10", "128MM"])
@pytest.mark.parametrize(
    "words",
    [
        ("boot", "uml", "--target={}"),
        ("boot", "uml", "--mem={}"),
        ("serve", "--socket=x", "--target={}"),
        ("serve", "--socket=x", "--page-size={}"),
        ("ctl", "x", "balloon", "--", "{}"),
    ],
)
def test_what_is_no_size_is_refused(refused, words, size):
    sentence = refused(*(word.format(size) for word in words))

    assert f"{size!r} is not a size: write bytes, or 512K, 128M, 2G" in sentence


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("512K", 512 << 10),
        ("128M", 128 << 20),
        ("128m", 128 << 20),
        ("2G", 2 << 30),
        ("2GiB", 2 << 30),
        ("1TB", 1 << 40),
    ],
)
def test_sizes_are_written_as_people_write_them(text, size):
    assert parsing.size(text) == size


@pytest.mark.parametrize(
    "words",
    [
        ("boot", "uml", "--target", "384"),
        ("serve", "--socket=x", "--target", "384"),
        ("ctl", "x", "balloon", "384"),
    ],
)
def test_a_number_that_is_hardly_meant_to_be_bytes_is_not_taken_for_them(
    refused, words
):
    assert "'384' is only 384 bytes: write 384M, or 384K" in refused(*words)


@pytest.mark.parametrize("text", ["4096", "4K"])
def test_a_page_may_be_so_small(text):
    assert parsing.page_size(text) == 4096


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("proobe", "there is no policy 'proobe'; did you mean probe?"),
        ("", "there is no policy ''; there are evidence, feature-bit, none, probe"),
        ("probe:page=16", "the policy probe has no option page; it has pages"),
        ("none:x=1", "the policy none has no option x; it has none"),
        (
            "probe:pages",
            "'probe:pages': options are written NAME:option=value,option=value",
        ),
        (
            "probe:pages=many",
            "the option pages takes a whole number from 1 to 1048576, not 'many'",
        ),
        (
            "probe:pages=0",
            "the option pages takes a whole number from 1 to 1048576, not '0'",
        ),
    ],
)
@pytest.mark.parametrize(
    "words", [("compare",), ("boot", "uml"), ("serve", "--socket", "balloon.sock")]
)
@pytest.mark.usefixtures("a_machine", "signals")
def test_a_policy_that_does_not_exist_is_refused(
    refused, folder, words, policy, sentence
):
    assert refused(*words, "--policy", policy) == sentence
    assert names_in(folder) == []


# --- how commands end ---------------------------------------------------------------


@pytest.mark.parametrize("when", ["add", "compare"])
def test_an_interrupted_command_ends_as_shells_expect(run, monkeypatch, when):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, when, interrupt)

    assert run("compare") == (130, "", "")


def test_a_reader_that_goes_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(  # noqa: S603 - it is our own
        command("policies"), stdout=writer, stderr=subprocess.PIPE, check=False
    )

    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", ["policies", "compare --json"])
def test_output_for_which_there_is_no_room_is_told_in_a_sentence(words):
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(  # noqa: S603 - it is our own
            command(*words.split()),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    sentence = "not all could be written: No space left on device; make room for it"
    assert (ended.returncode, ended.stderr) == (2, f"balloon-plugin: {sentence}\n")


def test_the_version_is_told(run):
    assert run("--version") == (0, f"{__version__}\n", "")


def test_all_that_can_be_asked_for_has_help(run):
    code, out, err = run("boot", "uml", "--help")

    assert (code, err) == (0, "")
    assert {"--policy", "--target", "--mem", "--timeout"} <= {
        *re.findall(r"--\w+", out)
    }


def test_the_help_of_a_view_names_it_as_it_is_called(run):
    _, out, _ = run("ctl", "x", "balloon", "--help")

    assert out.startswith("usage: balloon-plugin ctl CONTROL balloon [-h] SIZE [GUEST]")


def test_a_command_imports_what_it_needs_and_no_more():
    program = (
        "import sys; from balloon_plugin import cli; code = cli.main(['policies'])\n"
        "too_much = {'compare', 'report', 'boot', 'hosts.vhost_user', 'sweep'}\n"
        "names = {f'balloon_plugin.{name}' for name in too_much}\n"
        "sys.exit(code or ' '.join(names & sys.modules.keys()) or 0)"
    )

    ended = subprocess.run(  # noqa: S603 - it is our own
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, "")
