from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from balloon_plugin.boot.guest import Ended, Heard
from balloon_plugin.boot.process import MAX_LINE, GuestProcess
from balloon_plugin.errors import HostError

PATIENCE = 10.0


@pytest.fixture
def inbox():
    return queue.SimpleQueue()


@pytest.fixture
def start(tmp_path, inbox):
    """Start a shell script as a guest."""
    started = []

    def start_one(script):
        guest = GuestProcess(("sh", "-c", script), tmp_path, inbox.put)
        started.append(guest)
        guest.start()
        return guest

    yield start_one
    for guest in started:
        guest.stop()


def next_line(inbox):
    happening = inbox.get(timeout=PATIENCE)
    assert isinstance(happening, Heard)
    return happening.line


def is_running(pid):
    """A zombie is not: it waits for a parent that may never ask."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


def test_lines_come_one_by_one_without_their_ends(start, inbox):
    start(r"printf 'one\r\ntwo\n'; echo three >&2")

    assert [next_line(inbox) for _ in range(3)] == ["one", "two", "three"]


def test_the_last_of_all_is_the_end_with_its_status(start, inbox):
    start("exit 7")

    assert inbox.get(timeout=PATIENCE).status == 7


@pytest.mark.parametrize(
    ("last_words", "status"),
    [("reboot: System halted", 0), ("GUEST poweroff", -signal.SIGABRT)],
)
def test_a_kernel_that_has_halted_may_die_of_anything(start, inbox, last_words, status):
    start(f"echo {last_words}; kill -ABRT $$")

    assert next_line(inbox) == last_words
    assert inbox.get(timeout=PATIENCE).status == status


def test_a_command_is_typed_on_the_console(start, inbox):
    guest = start("read -r line; echo got $line")

    guest.send("status")
    assert next_line(inbox) == "got status"


def test_a_command_for_nobody_is_no_error(start, inbox):
    guest = start("exit 0")
    assert isinstance(inbox.get(timeout=PATIENCE), Ended)

    guest.send("status")


def test_a_line_without_end_is_cut(start, inbox):
    start(f"head -c {2 * MAX_LINE} /dev/zero | tr '\\0' x")

    assert [len(next_line(inbox)) for _ in range(2)] == [MAX_LINE, MAX_LINE]


def test_bytes_that_are_no_text_are_no_problem(start, inbox):
    start(r"printf '\377\n'")

    assert next_line(inbox) == "\N{REPLACEMENT CHARACTER}"


def test_stop_ends_all_that_it_started(start, inbox):
    guest = start("sleep 100 & echo $!; wait")
    child = int(next_line(inbox))

    guest.stop()
    assert inbox.get(timeout=PATIENCE).status == -signal.SIGKILL
    wait_until(lambda: not is_running(child))


def test_what_a_guest_leaves_behind_ends_with_it(start, inbox):
    start("sleep 100 & echo $!")
    child = int(next_line(inbox))

    assert inbox.get(timeout=PATIENCE).status == 0
    wait_until(lambda: not is_running(child))


def test_stop_before_start_and_twice_is_harmless(tmp_path, inbox):
    guest = GuestProcess(("true",), tmp_path, inbox.put)
    guest.stop()
    guest.start()

    guest.stop()
    guest.stop()


def test_a_program_that_cannot_be_started_is_said(tmp_path, inbox):
    guest = GuestProcess((str(tmp_path / "none"),), tmp_path, inbox.put)

    with pytest.raises(HostError, match="none cannot be started: No such file"):
        guest.start()
    guest.stop()


def test_memory_is_counted_in_blocks_of_the_nameless_file(start, inbox, tmp_path):
    memory = tmp_path / "memory"
    memory.write_bytes(bytes(1 << 20))
    os.truncate(memory, 1 << 30)
    guest = start("exec 5<memory; rm memory; echo; read -r _")
    next_line(inbox)

    assert 1 << 20 <= guest.memory_held() < 2 << 20


def test_without_such_a_file_the_memory_is_unknown(start):
    assert start("read -r _").memory_held() is None


def test_the_memory_of_a_guest_that_is_gone_is_unknown(start, inbox):
    guest = start("exit 0")
    inbox.get(timeout=PATIENCE)

    assert guest.memory_held() is None


ORPHANED = """
import pathlib, sys, time
from balloon_plugin.boot.process import GuestProcess
folder = pathlib.Path(sys.argv[1])
guest = GuestProcess(
    ("sh", "-c", "echo $$; sleep 100"), folder, lambda h: print(h.line, flush=True)
)
guest.start()
time.sleep(100)
"""


def test_nothing_is_left_even_if_we_are_killed(tmp_path):
    folder = tmp_path / "private"
    folder.mkdir()
    with subprocess.Popen(  # noqa: S603 - the script above
        [sys.executable, "-c", ORPHANED, folder], stdout=subprocess.PIPE, text=True
    ) as us:
        guest = int(us.stdout.readline())
        us.kill()

    wait_until(lambda: not is_running(guest))
    wait_until(lambda: not folder.exists())
