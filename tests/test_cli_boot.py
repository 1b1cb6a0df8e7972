"""``balloon-plugin boot``: what it refuses; guests really boot in other tests."""

from __future__ import annotations

import platform
from pathlib import Path
from types import SimpleNamespace

import pytest

from balloon_plugin.boot.qemu import QemuOptions, Transport
from balloon_plugin.cli import boot
from balloon_plugin.events import ByteOrder
from balloon_plugin.features import DeviceOptions


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


@pytest.mark.parametrize("machine", ["uml", "qemu --kernel k --initrd i"])
@pytest.mark.usefixtures("folder", "bare")
def test_the_features_of_the_balloon_are_chosen(run, monkeypatch, machine):
    plans = []
    monkeypatch.setattr(boot, "find_uml", lambda: None)
    monkeypatch.setattr(boot, "find_qemu", lambda _options: None)
    monkeypatch.setattr(
        boot,
        "boot",
        lambda _machine, plan, _report: (
            plans.append(plan) or SimpleNamespace(ending=SimpleNamespace(exit_code=0))
        ),
    )

    words = "--feature reporting --feature no-statistics"
    code, _, _ = run("boot", *machine.split(), *words.split())

    assert code == 0
    assert plans[0].options == DeviceOptions(statistics=False, reporting=True)


def test_a_feature_that_is_none_is_answered_with_those_that_there_are(
    refused, monkeypatch
):
    monkeypatch.setattr(boot, "find_uml", lambda: None)

    sentence = refused("boot", "uml", "--feature", "colour")

    assert sentence.startswith("there is no feature 'colour': choose of statistics, ")


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
        f"qemu-system-{platform.machine()} is not on this machine: install QEMU 10.1 or"
    )


@pytest.mark.usefixtures("images")
def test_qemu_gets_all_that_was_chosen(run, monkeypatch):
    chosen = []
    monkeypatch.setattr(boot, "find_qemu", chosen.append)
    monkeypatch.setattr(
        boot, "boot", lambda *_: SimpleNamespace(ending=SimpleNamespace(exit_code=1))
    )

    code, _, _ = run(
        *(*QEMU, "--qemu", "q", "--arch", "x86_64", "--machine", "m", "--cpu", "c"),
        *(
            "--modules",
            "m/6",
            "--append",
            "a=1 b",
            "--transport",
            "modern",
            "--driver",
            "d:e=1",
        ),
        *("--byte-order", "big", "--page-size", "64K"),
    )
    assert code == 1
    assert chosen == [
        QemuOptions(
            kernel=Path("Image"),
            initrd=Path("initrd"),
            modules=Path("m/6"),
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


@pytest.mark.usefixtures("a_machine")
def test_the_plan_has_where_to_record(run, monkeypatch):
    plans = []

    def story(_machine, plan, _tell):
        plans.append(plan)
        return SimpleNamespace(ending=SimpleNamespace(exit_code=0))

    monkeypatch.setattr(boot, "boot", story)

    assert run("boot", "uml", "--record", "night.jsonl.zst")[0] == 0
    assert run("boot", "uml")[0] == 0
    assert [plan.record for plan in plans] == [Path("night.jsonl.zst"), None]
