"""The command line as its users meet it: what it prints, refuses and returns."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import vhost_user_traces as traces
from vhost_user_front_end import FrontEnd

from balloon_plugin import __version__, cli
from balloon_plugin.boot.qemu import QemuOptions, Transport
from balloon_plugin.events import ByteOrder

GUEST = "linux-3.4-be-64k"
PAGE = 4096


@pytest.fixture
def run(capsys):
    """Run a command; return its exit code, output and errors."""

    def run(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as error:  # argparse
            code = error.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(run):
    """Run a command that cannot be carried out; return the sentence about that."""

    def refused(*words):
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        assert line.startswith("balloon-plugin: ")
        return line.removeprefix("balloon-plugin: ")

    return refused


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to be in, so that paths of sockets are short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# --- words that make no sense -------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "the following arguments are required: COMMAND; see 'balloon-plugin --h"),
        ("boot", "the following arguments are required: MACHINE; see "),
        ("ctl", "the following arguments are required: control, WHAT; see "),
        ("serve", "the following arguments are required: --socket; see "),
        ("dance", "argument COMMAND: invalid choice: 'dance' (choose from "),
        ("policies --all", "unrecognized arguments: --all; see "),
        ("boot uml --target", "argument --target: expected one argument; see "),
        ("boot uml --timeout soon", "argument --timeout: 'soon' is no time: write sec"),
        ("boot uml --timeout nan", "argument --timeout: 'nan' is no time: write sec"),
        ("boot uml --timeout 0", "argument --timeout: '0' is no time: write seconds"),
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
        ("4096", 4096),
        ("512K", 512 << 10),
        ("128M", 128 << 20),
        ("128m", 128 << 20),
        ("2G", 2 << 30),
        ("2GiB", 2 << 30),
        ("1TB", 1 << 40),
    ],
)
def test_sizes_are_written_as_people_write_them(text, size):
    assert cli._bytes(text) == size


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


def test_a_guest_that_does_not_exist_is_refused(refused):
    assert refused("compare", "--guest", "linux-3.4-be-65k").startswith(
        "there is no guest 'linux-3.4-be-65k'; did you mean linux-3.4-be-64k? "
    )


# --- compare and policies -----------------------------------------------------------


def test_policies_are_listed_with_a_line_on_each(run):
    code, out, err = run("policies")

    assert (code, err) == (0, "")
    heads, *lines = out.splitlines()
    assert heads.split() == ["policy", "options", "from", "what", "it", "does"]
    probe = next(line for line in lines if line.startswith("probe "))
    assert probe.split()[:4] == ["probe", "pages=16", "balloon-plugin", "Ask"]


def test_a_comparison_is_a_table_with_its_legend(run):
    code, out, err = run("compare", "--guest", GUEST, "--policy", "feature-bit")

    assert (code, err) == (0, "")
    heads, row, empty, *legend = out.splitlines()
    names = "guest policy verdict state harm taken parked steps usable because"
    assert heads.split() == names.split()
    assert row.split()[:10] == (
        f"{GUEST} feature-bit buggy NOT_ACKED WRONG - - - 1 no".split()
    )
    assert empty == ""
    assert {line.partition(":")[0] for line in legend} <= {*heads.split()}


def test_a_comparison_is_json_if_asked_for(run):
    words = ("--guest", GUEST, "--policy", "probe", "--policy", "none", "--json")
    code, out, err = run("compare", *words)

    assert (code, err) == (0, "")
    (document,) = json.loads(out).items()
    assert document[0] == "rows"
    assert [row["policy"] for row in document[1]] == ["probe", "none"]
    names = (
        "guest policy verdict state right harm_pages taken_pages parked_pages steps "
        "usable defects evidence"
    )
    assert document[1][0].keys() >= {*names.split()}


# --- how commands end ---------------------------------------------------------------


def test_an_interrupted_command_ends_as_shells_expect(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "compare", interrupt)

    assert run("compare") == (130, "", "")


def command(*words):
    """Return a command line that runs us as a process of its own."""
    return [sys.executable, "-m", "balloon_plugin", *map(str, words)]


def test_a_reader_that_goes_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(  # noqa: S603 - it is our own
        command("policies"), stdout=writer, stderr=subprocess.PIPE, check=False
    )

    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_version_is_told(run):
    assert run("--version") == (0, f"{__version__}\n", "")


def test_all_that_can_be_asked_for_has_help(run):
    code, out, err = run("boot", "uml", "--help")

    assert (code, err) == (0, "")
    assert {"--policy", "--target", "--mem", "--timeout"} <= {
        *re.findall(r"--\w+", out)
    }


# --- boot ---------------------------------------------------------------------------


@pytest.fixture
def a_machine(monkeypatch):
    """A guest that is never started."""
    machine = SimpleNamespace(byte_order=None, page_size=None)
    monkeypatch.setattr(cli, "find_uml", lambda: machine)


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A PATH with nothing on it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("bare")
def test_without_a_kernel_one_is_told_what_to_install(refused):
    assert refused("boot", "uml") == (
        "linux.uml is not on this machine: install it (on Debian and its relatives: "
        "apt install user-mode-linux)"
    )


def test_without_busybox_one_is_told_what_to_install(refused, bare):
    kernel = bare / "linux.uml"
    kernel.write_text("#!/bin/sh\necho 6.1.0")
    kernel.chmod(0o755)

    assert refused("boot", "uml").endswith("apt install busybox-static)")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--target", "0"), "the target must be at least one page of 4 KiB"),
        (("--target", "900M"), "a balloon of 900 MiB leaves too little of 512 MiB"),
        (("--mem", "1M"), "a balloon of 128 MiB leaves too little of 1 MiB: give the"),
    ],
)
@pytest.mark.usefixtures("a_machine")
def test_a_balloon_that_does_not_fit_is_refused(refused, words, sentence):
    assert refused("boot", "uml", *words).startswith(sentence)


QEMU = ("boot", "qemu", "--kernel", "Image", "--initrd", "initrd")


@pytest.fixture
def images(folder):
    for name in ("Image", "initrd"):
        (folder / name).touch()


@pytest.mark.usefixtures("folder")
def test_qemu_needs_something_to_boot(refused):
    assert refused(*QEMU) == "Image cannot be read: No such file or directory"


@pytest.mark.usefixtures("images", "bare")
def test_without_qemu_one_is_told_what_to_install(refused):
    assert refused(*QEMU).startswith(
        "qemu-system-aarch64 is not on this machine: install QEMU 10.1 or later"
    )


@pytest.mark.usefixtures("images")
def test_qemu_gets_all_that_was_chosen(run, monkeypatch):
    chosen = []
    monkeypatch.setattr(cli, "find_qemu", chosen.append)
    monkeypatch.setattr(
        cli, "boot", lambda *_: SimpleNamespace(ending=SimpleNamespace(exit_code=1))
    )

    code, _, _ = run(
        *(*QEMU, "--qemu", "q", "--arch", "x86_64", "--machine", "m", "--cpu", "c"),
        *("--append", "a=1 b", "--transport", "modern", "--driver", "d:e=1"),
        *("--byte-order", "big", "--page-size", "64K"),
    )
    assert code == 1
    assert chosen == [
        QemuOptions(
            kernel=Path("Image"),
            initrd=Path("initrd"),
            arch="x86_64",
            command="q",
            machine="m",
            cpu="c",
            append="a=1 b",
            transport=Transport.MODERN,
            driver="d:e=1",
            byte_order=ByteOrder.BIG,
            page_size=65536,
        )
    ]


# --- serve, refused -----------------------------------------------------------------


@contextlib.contextmanager
def somebody_on(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        yield


@pytest.fixture
def signals():
    """Puts the handlers of signals back that ``serve`` replaces."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


IN_USE = "somebody listens on {} already: stop that daemon or choose another path"
NO_SOCKET = "{} exists and is no socket: remove it or choose another path"
IMPOSSIBLE = "the socket {} cannot be made: {}; choose another path"
NO_FOLDER = "No such file or directory"
LONG = "x" * 108


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--socket alive", IN_USE.format("alive")),
        ("--socket mine --socket alive", IN_USE.format("alive")),
        ("--socket mine --socket mine", IN_USE.format("mine")),
        ("--socket mine --control mine", IN_USE.format("mine")),
        ("--socket mine --control alive", IN_USE.format("alive")),
        ("--socket file", NO_SOCKET.format("file")),
        ("--socket mine --control file", NO_SOCKET.format("file")),
        ("--socket no/mine", IMPOSSIBLE.format("no/mine", NO_FOLDER)),
        ("--socket mine --control no/c", IMPOSSIBLE.format("no/c", NO_FOLDER)),
        (f"--socket {LONG}", IMPOSSIBLE.format(LONG, "AF_UNIX path too long")),
    ],
)
@pytest.mark.usefixtures("signals")
def test_a_socket_that_cannot_be_had_is_refused(refused, folder, words, sentence):
    (folder / "file").touch()
    with somebody_on("alive"):
        assert refused("serve", *words.split()) == sentence

    assert names_in(folder) == ["alive", "file"]


# --- serve and ctl ------------------------------------------------------------------


@pytest.fixture
def serve(folder):
    """Start ``serve`` and wait for it; afterwards it is gone, whatever happened."""
    with contextlib.ExitStack() as stack:

        def serve(*words):
            process = subprocess.Popen(  # noqa: S603 - it is our own
                command("serve", *words),
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            for _ in range(words.count("--socket")):
                line = process.stdout.readline()
                while ": waiting for a front end" not in line:
                    assert line, process.stderr.read()
                    line = process.stdout.readline()
            return process

        yield serve


@pytest.fixture
def ctl(run):
    """Talk to a device that is served; return the answer."""

    def ctl(*words):
        code, out, err = run("ctl", *words)
        assert (code, err) == (0, "")
        return json.loads(out)

    return ctl


class Guest(FrontEnd):
    """A front end of a daemon in another process, whose guest has 1 MiB of RAM."""

    def __init__(self, path):
        super().__init__(path, SimpleNamespace(step=lambda: False))
        self.send(*traces.UML_CONNECT, *traces.uml_probe())


def until(what, timeout=20):
    """Wait until something is so."""
    end = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


RAM = traces.RAM_SIZE // PAGE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_the_sockets_are_gone(serve, folder, number):
    served = serve("--socket", "a", "--socket", "b", "--control", "c")
    assert names_in(folder) == ["a", "b", "c", "c.1"]

    served.send_signal(number)

    assert served.wait(10) == 0
    assert names_in(folder) == []
    assert (served.stdout.read(), served.stderr.read()) == ("", "")


def test_several_signals_do_not_disturb_the_end(serve, folder):
    served = serve("--socket", "a", "--control", "c")

    for _ in range(50):
        served.send_signal(signal.SIGTERM)
        served.send_signal(signal.SIGINT)

    assert served.wait(10) == 0
    assert names_in(folder) == []
    assert served.stderr.read() == ""


def test_it_ends_while_a_front_end_and_a_client_are_there(serve, folder):
    served = serve("--socket", "a", "--control", "c")
    with contextlib.closing(Guest("a")), socket.socket(socket.AF_UNIX) as client:
        client.connect("c")
        client.recv(1000)

        served.terminate()

        assert served.wait(10) == 0
        assert client.recv(1000) == b""
    assert names_in(folder) == []


def test_a_daemon_that_was_killed_is_in_nobodys_way(serve):
    killed = serve("--socket", "a", "--control", "c")
    killed.kill()
    killed.wait()

    served = serve("--socket", "a", "--control", "c")

    served.terminate()
    assert served.wait(10) == 0


def test_the_target_is_changed_while_it_runs(serve, ctl):
    serve("--socket", "a", "--control", "c", "--policy", "none")
    with contextlib.closing(Guest("a")):
        until(lambda: ctl("c", "query")["driver"])

        answer = ctl("c", "balloon", "512K")

        assert answer == {"answer": "accepted", "reason": "", "requested": RAM // 2}
        assert ctl("c", "query")["advertised"] == RAM // 2
        assert ctl("c", "verdict")["state"] == "BELIEVED"


def test_a_target_that_waits_is_told(serve, ctl):
    served = serve("--socket", "a", "--control", "c", "--policy", "probe")
    with contextlib.closing(Guest("a")):
        until(lambda: ctl("c", "query")["driver"])

        assert ctl("c", "balloon", "512K")["answer"] == "deferred"

    served.terminate()
    told = served.communicate()[0].splitlines()
    assert "a: target 128 is deferred (the driver is being tested; " in told[0]


def test_a_target_that_is_refused_is_an_error(serve, refused, ctl):
    served = serve(
        *("--socket", "a", "--control", "c", "--policy", "feature-bit:always=yes")
    )
    with contextlib.closing(Guest("a")):
        until(lambda: ctl("c", "query")["driver"])

        assert refused("ctl", "c", "balloon", "512K").startswith(
            "the target is refused: the driver did not accept VIRTIO_BALLOON_F_ENDIAN"
        )
    served.terminate()


@pytest.mark.parametrize(
    ("size", "kept", "known"),
    [("64K", 16, 16), ("2M", 512, RAM), ("99T", 2**32 - 1, RAM)],
)
def test_a_target_from_before_the_guest_is_kept_until_its_ram_is_known(
    serve, ctl, size, kept, known
):
    serve("--socket", "a", "--control", "c", "--policy", "none", "--target", size)
    assert ctl("c", "query")["requested"] == kept

    with contextlib.closing(Guest("a")):
        until(lambda: ctl("c", "query")["driver"])

        status = ctl("c", "query")
        assert (status["requested"], status["advertised"]) == (known, known)


def test_several_guests_have_a_device_and_a_control_socket_each(serve, refused, ctl):
    serve("--socket", "a", "--socket", "b", "--control", "c", "--policy", "none")
    with contextlib.closing(Guest("b")):
        until(lambda: ctl("c.1", "query")["driver"])

        assert ctl("c.1", "balloon", "0")["requested"] == RAM
        assert ctl("c", "query")["requested"] == 0
        assert refused("ctl", "c", "balloon", "0") == (
            "the guest's memory is not known before a front end connects"
        )


def test_a_front_end_that_talks_nonsense_is_a_sentence(serve, ctl):
    served = serve("--socket", "a", "--socket", "b", "--control", "c")
    with contextlib.closing(Guest("b")), socket.socket(socket.AF_UNIX) as liar:
        liar.connect("a")
        liar.sendall(b"GET / HTTP/1.0\r\n\r\n")
        until(lambda: ctl("c.1", "query")["driver"])

        with pytest.raises(ConnectionResetError):
            liar.recv(100)
        assert ctl("c.1", "query")["driver"]
    served.terminate()
    _, log = served.communicate()
    assert "a: the connection ends: " in log
    assert "Traceback" not in log


# --- ctl, refused -------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_where_nobody_listens_nobody_answers(refused):
    assert refused("ctl", "missing", "query") == (
        "no device answers on missing (No such file or directory); "
        "give serve's --control path"
    )


def test_a_front_ends_socket_is_no_control_socket(serve, refused):
    served = serve("--socket", "a")

    sentence = refused("ctl", "a", "query")

    assert sentence.startswith("no device answers on a (")
    assert sentence.endswith("); give serve's --control path")
    assert served.poll() is None
