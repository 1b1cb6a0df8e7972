"""The README tells the truth: what is typed in it runs, and prints what is shown."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from types import SimpleNamespace

import pytest
from command_line import until
from real_guests import find_distribution
from walkthrough import INSTALLED, ROOT, blocks, matches, play, run

from balloon_plugin import control
from balloon_plugin.boot.qemu import find_qemu
from balloon_plugin.boot.uml import find_uml

README = (ROOT / "README.md").read_text()
PAGE = blocks("README.md")
CONSOLE = [block for block in PAGE if block.language == "console"]


@pytest.mark.slow
def test_the_commands_print_what_is_shown(here):
    plain = [block for block in CONSOLE if not block.hint]

    assert plain
    for block in plain:
        for typed, shown in block.turns:
            printed = run(typed, here)
            assert matches(shown, printed), (typed, "\n".join(printed))


@pytest.mark.slow
def test_it_is_installed_as_is_shown(here):
    (block,) = (block for block in CONSOLE if block.hint == "install")
    commands = [typed for typed, _ in block.turns]

    run("\n".join([*commands, "which balloon-plugin | grep $PWD"]), here, **INSTALLED)


@pytest.mark.real
@pytest.mark.slow
def test_real_guests_do_what_is_shown(here, terminal, require_real):
    require_real(find_uml)

    terminals = play(CONSOLE, here, terminal)

    assert terminals.keys() == {"device", "guest", "control"}
    terminals["guest"].type("/ # poweroff -f")
    terminals["device"].see(["vm1: device is reset: a new driver session begins"])
    terminals["device"].type("^C")


@pytest.mark.real
@pytest.mark.slow
def test_the_guest_of_its_qemu_line_gets_a_balloon(serve, begin_guest, require_real):
    machine = as_its_qemu_line_says(find_qemu(require_real(find_distribution)))
    serve("--socket", "vm1=balloon.sock", "--control", "control.sock")
    guest = begin_guest(machine, ".", 1024)
    guest.boot()
    guest.load()

    asked = control.ask("control.sock", "balloon", value=768 << 20)["requested"]

    def reached():
        status = control.ask("control.sock", "query-balloon-status")
        return status["actual"] == status["reclaimed"] == asked

    until(reached)
    assert asked > 128 << 8, "most of the RAM that the line gives it is left"
    assert guest.power_off() == 0


def as_its_qemu_line_says(qemu):
    """Return a machine of these words, and a guest for the rest."""
    (block,) = (block for block in PAGE if block.language == "shell")
    program, *words, rest = shlex.split(block.text.replace("\\\n", ""))
    assert (program, rest) == (f"qemu-system-{qemu.options.arch}", "...")

    def prepare(folder, *_):
        initrd = folder / "root.gz"
        initrd.write_bytes(qemu.root)
        return (
            *(*qemu.emulator.command, *words, "-nodefaults", "-display", "none"),
            *("-kernel", str(qemu.options.kernel), "-initrd", initrd.name),
            *("-append", f"console={qemu.board.console} quiet", "-serial", "stdio"),
        )

    return SimpleNamespace(driver=qemu.driver, prepare=prepare)


def test_a_machine_of_libvirt_has_the_device_of_its_qemu_line():
    (line,) = (block for block in PAGE if block.language == "shell")
    _, *words = shlex.split(line.text.replace("\\\n", ""))
    page = (ROOT / "docs" / "vhost-user.md").read_text()
    passed = re.findall(r'<qemu:arg value="([^"]*)"', page)

    ours = [words[words.index(option) + 1] for option in ("-chardev", "-device")]
    assert passed[::2] == ["-chardev", "-device"]
    passed[1] = passed[1].replace("/run/balloon/vm1", "balloon")
    assert passed[1::2] == ours


def test_the_host_in_a_few_lines_runs_and_prints_what_is_said():
    code, shown = (block.text for block in PAGE if block.language in ("python", "text"))

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - it is our own

    assert printed.getvalue() == shown


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


def test_the_pages_that_it_leads_to_can_be_read_without_being_built():
    empty = [
        page.name for page in (ROOT / "docs").glob("*.md") if "[](" in page.read_text()
    ]

    assert not empty, "links without words, which only Sphinx fills in"
