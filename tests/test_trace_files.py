"""Where traces are kept: what is written is there, and what a crash leaves is read."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys

import pytest

from balloon_plugin.errors import HostError
from balloon_plugin.trace import create, files, read
from balloon_plugin.zstd import NAME

LINES = [b"%d times something\n" % number for number in range(200)]
NAMES = ["night.jsonl", "night.jsonl.zst"]


def write(path, lines=LINES):
    own, sink = create(path)
    for line in lines:
        sink.write(line)
    sink.close()
    return own


@pytest.mark.parametrize("name", NAMES)
def test_lines_come_back(tmp_path, name):
    path = write(tmp_path / name)

    assert path.name == name
    assert list(read(path)) == LINES


def test_a_plain_trace_is_text(tmp_path):
    assert write(tmp_path / "x").read_bytes() == b"".join(LINES)


def test_a_compressed_one_is_smaller(tmp_path):
    assert write(tmp_path / "x.zst").stat().st_size < len(b"".join(LINES)) / 4


def test_compression_is_seen_whatever_the_name(tmp_path):
    path = write(tmp_path / "x.zst").rename(tmp_path / "y")

    assert list(read(path)) == LINES


def test_a_file_is_never_written_over(tmp_path, caplog):
    (tmp_path / "night.jsonl.zst").write_text("mine")

    names = [write(tmp_path / "night.jsonl.zst").name for _ in range(2)]

    assert names == ["night.1.jsonl.zst", "night.2.jsonl.zst"]
    assert (tmp_path / "night.jsonl.zst").read_text() == "mine"
    assert caplog.messages == [
        f"{tmp_path / 'night.jsonl.zst'} is there already: the trace goes to "
        f"{tmp_path / name}"
        for name in names
    ]


# --- crashes ------------------------------------------------------------------------

DYING = """
import os, signal, sys
from pathlib import Path
from balloon_plugin.trace import create
_, sink = create(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    sink.write(b"%d times something\\n" % number)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_whoever_is_killed_leaves_every_line(tmp_path):
    program = [sys.executable, "-c", DYING, str(tmp_path / "x"), "50"]

    done = subprocess.run(program, check=False)  # noqa: S603 - our own interpreter

    assert done.returncode == -signal.SIGKILL
    assert list(read(tmp_path / "x")) == LINES[:50]


def test_what_is_compressed_is_there_a_second_later(tmp_path, monkeypatch):
    _, sink = create(tmp_path / "x.zst")
    sink.write(LINES[0])
    before = list(read(tmp_path / "x.zst"))
    monkeypatch.setattr(files, "_EVERY", 0.0)

    sink.write(LINES[1])

    assert before == []
    assert list(read(tmp_path / "x.zst")) == LINES[:2]
    sink.close()


@pytest.mark.parametrize("part", [1, 2, 3])
def test_a_compressed_file_may_end_anywhere(tmp_path, part):
    noise = [os.urandom(40).hex().encode() + b"\n"] * 9
    path = write(tmp_path / "x.zst", noise + LINES)
    whole, data = list(read(path)), path.read_bytes()
    path.write_bytes(data[: len(data) * part // 4])

    left = b"".join(read(path))

    assert b"".join(whole).startswith(left)


# --- what goes wrong ----------------------------------------------------------------


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(HostError, match="x cannot be read: No such file"):
        list(read(tmp_path / "x"))


def test_a_place_that_takes_none_is_named(tmp_path):
    with pytest.raises(HostError, match="x cannot be written: No such file"):
        create(tmp_path / "none" / "x")


def test_damage_in_a_compressed_file_is_said(tmp_path):
    path = write(tmp_path / "x.zst")
    data = bytearray(path.read_bytes())
    data[4:12] = b"\xff" * 8
    path.write_bytes(data)

    with pytest.raises(
        HostError, match=r"compressed trace is damaged: .*; take another copy"
    ):
        list(read(path))


def test_so_is_a_byte_that_became_another_in_a_trace_that_ended_in_order(tmp_path):
    path = write(tmp_path / "x.zst", [os.urandom(40) + b"\n" for _ in range(200)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(
        HostError, match=r"compressed trace is damaged: .*; take another copy"
    ):
        list(read(path))


@pytest.mark.parametrize("use", [create, lambda path: list(read(path))])
def test_without_the_package_it_says_which(tmp_path, monkeypatch, use):
    write(tmp_path / "x.zst").rename(tmp_path / "y.zst")
    monkeypatch.setitem(sys.modules, NAME, None)

    with pytest.raises(HostError, match=r"pip install 'balloon-plugin\[trace\]'"):
        use(tmp_path / "y.zst")


@pytest.mark.parametrize("name", NAMES)
def test_a_line_without_end_is_not_taken_into_memory(tmp_path, monkeypatch, name):
    path = write(tmp_path / name, [*LINES[:3], bytes(1000)])
    monkeypatch.setattr(files, "_LONGEST", 100)
    lines = read(path)

    assert [next(lines) for _ in range(3)] == LINES[:3]
    with pytest.raises(HostError, match="a line of 100 bytes is in no trace"):
        next(lines)


@contextlib.contextmanager
def disk_of(size):
    """Let no file of ours be larger than so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.zst"])
def test_a_disk_that_is_full_ends_a_trace_though_there_is_room_again(
    tmp_path, monkeypatch, name
):
    monkeypatch.setattr(files, "_EVERY", 0.0)
    path, sink = create(tmp_path / name)
    sink.write(LINES[0])
    size = path.stat().st_size

    with disk_of(size + 5), pytest.raises(OSError, match="disk is full"):
        sink.write(b"this has no room any more\n")
    for use in (lambda: sink.write(b"and this comes too late\n"), sink.close):
        with contextlib.suppress(OSError):
            use()

    assert path.stat().st_size == size + 5
    assert next(read(path)) == LINES[0]
