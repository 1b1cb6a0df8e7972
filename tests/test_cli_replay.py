"""``replay`` and ``--record`` as their users meet them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from dataclasses import replace

import pytest
from record_traces import path_of

from balloon_plugin import cli
from balloon_plugin.browse import HELP
from balloon_plugin.trace import decode, encode, read

TRACE = path_of("arm64be-64k.pre34.probe")


@pytest.fixture
def run(capsys):
    """Run ``replay``; return its exit code, output and errors."""

    def run(*words):
        code = cli.main(["replay", *map(str, words)])
        return code, *capsys.readouterr()

    return run


def test_the_policy_that_was_recorded_is_the_usual_one(run):
    code, out, _ = run(TRACE)

    assert code == 0
    assert "recorded under probe" in out
    assert "probe comes to the same as it did when it was recorded." in out


def test_others_are_set_beside_it(run):
    code, out, _ = run(TRACE, "--policy", "none", "--policy", "evidence")

    assert code == 0
    assert "replayed 2 times" in out
    assert "BELIEVED" in out
    assert "HELD" in out
    assert "shadow none, from event 1 on: would show 0, would reclaim" in out
    assert "shadow evidence only guesses from event" in out


def test_json_has_the_evidence_whole(run):
    code, out, _ = run(TRACE, "--json", "--policy", "probe")

    (replayed,) = json.loads(out)["replays"]
    (session,) = replayed["sessions"]
    assert code == 0
    assert replayed["faithful"] is True
    assert session["defects"] == ["ENDIAN_TARGET"]
    assert session["evidence"][-1]["event"] == "actual = 256"


def test_a_policy_that_is_another_by_now_is_exit_code_1(run, tmp_path):
    header, moments = decode(read(TRACE))
    path = tmp_path / "old.jsonl"
    lines = map(encode, (header, *moments))
    path.write_bytes(b"".join(lines).replace(b"Buggy guest", b"Bad guest"))

    code, out, _ = run(path)

    assert code == 1
    assert "probe does not come to the same as it did; it is another version" in out


def test_a_trace_without_a_driver_says_so(run, tmp_path):
    header, _ = decode(read(TRACE))
    (tmp_path / "x").write_bytes(encode(header))

    code, out, _ = run(tmp_path / "x")

    assert code == 0
    assert "No driver shows itself in it." in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "the trace nowhere cannot be read: No such file or directory"),
        ([__file__], "this is no trace of a balloon"),
        ([TRACE, "--policy", "prob"], "there is no policy 'prob'; did you mean probe?"),
        ([TRACE, "--interactive"], "there is no terminal to show pages on: leave"),
        (
            [TRACE, "--interactive", "--policy=none", "--policy=probe"],
            "--interactive shows one replay: give --policy once",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(run, words, sentence):
    code, out, err = run(*words)

    assert (code, out) == (2, "")
    assert sentence in err


@pytest.mark.parametrize("how", ["--interactive", "--html=report.html"])
def test_a_trace_of_nothing_cannot_be_shown(run, tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    header, _ = decode(read(TRACE))
    (tmp_path / "x").write_bytes(encode(header))

    code, _, err = run(tmp_path / "x", how)

    assert code == 2
    assert "there is no event in" in err


def test_it_is_gone_through_on_a_terminal():
    """Over a pseudo-terminal, as ssh has one, and without rich."""
    ours, theirs = pty.openpty()
    resize(ours, lines=24)
    program = (
        "import sys; sys.modules['rich'] = None; from balloon_plugin import cli;"
        f"sys.exit(cli.main(['replay', {str(TRACE)!r}, '--interactive']))"
    )
    before = termios.tcgetattr(theirs)
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", program],
        stdin=theirs,
        stdout=theirs,
        env={"PATH": os.defpath, "TERM": "vt100"},
    ) as process:
        try:
            assert "event 1 of" in until(ours, HELP)
            os.write(ours, b"\x1b[B")
            assert "event 2 of" in until(ours, HELP)
            resize(ours, lines=40)
            assert until(ours, HELP).count("\n") == 40 - 1
            os.write(ours, b"v")
            assert "BUGGY (buggy)" in until(ours, HELP)
            os.write(ours, b"q")
            assert until(ours, "\x1b[?1049l").endswith("\x1b[?25h\x1b[?1049l")
            assert process.wait() == 0
        finally:
            process.kill()
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def resize(terminal, lines):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, 80, 0, 0))


def until(terminal, text):
    """Read a terminal until a text is on it."""
    shown = ""
    while text not in shown:
        ready, _, _ = select.select([terminal], [], [], 60.0)
        assert ready, f"only {shown!r} comes, not {text!r}"
        shown += os.read(terminal, 65536).decode(errors="replace")
    return shown


def test_a_report_is_written_if_asked_for(run, tmp_path):
    path = tmp_path / "report.html"

    code, out, _ = run(TRACE, "--html", path)

    assert code == 0
    assert "recorded under probe" in out
    assert "recorded under probe</h1>" in path.read_text()


def test_what_cannot_be_encoded_is_shown_all_the_same(run, tmp_path):
    header, moments = decode(read(TRACE))
    lines = map(encode, (replace(header, guest="\ud800"), *moments))
    (tmp_path / "x").write_bytes(b"".join(lines))
    path = tmp_path / "report.html"

    code, out, _ = run(tmp_path / "x", "--html", path)

    assert code == 0
    assert out.startswith(r"\ud800, recorded under probe")
    assert r"\ud800, recorded under probe</h1>" in path.read_text()
