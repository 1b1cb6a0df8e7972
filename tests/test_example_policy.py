"""The example package of docs/policies.md: loaded as if installed, then tested."""

from __future__ import annotations

import configparser
import importlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pluggy
import pytest

import balloon_plugin
from balloon_plugin import hookspecs
from balloon_plugin.events import ActualWritten, Judgement, TimePassed

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "balloon-plugin-patience"
GROUP = "balloon_plugin.policies"


@pytest.fixture
def in_folder(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    sys.modules.pop("balloon_plugin_patience", None)


def entry_points():
    config = configparser.ConfigParser()
    config.read(EXAMPLE / "setup.cfg")
    lines = config["options.entry_points"][GROUP].split("\n")
    pairs = [line.split("=", 1) for line in lines if line.strip()]
    return [EntryPoint(key.strip(), value.strip(), GROUP) for key, value in pairs]


def test_setup_cfg_names_the_module_that_is_there():
    config = configparser.ConfigParser()
    config.read(EXAMPLE / "setup.cfg")

    assert (EXAMPLE / f"{config['options']['py_modules']}.py").is_file()
    assert config["options"]["install_requires"] == "balloon-plugin"


@pytest.mark.usefixtures("in_folder")
def test_entry_point_leads_to_a_factory_whose_product_fits_the_hooks():
    [entry] = entry_points()
    plugins = pluggy.PluginManager(hookspecs.PROJECT)
    plugins.add_hookspecs(hookspecs)

    policy = entry.load()(pages="32", seconds="1")
    plugins.register(policy)
    plugins.check_pending()

    assert entry.name == "patience"
    for event in (ActualWritten(32), TimePassed(0.0), TimePassed(1.0)):
        plugins.hook.policy_observe(event=event)
    assert plugins.hook.policy_verdict().judgement is Judgement.GOOD
    assert plugins.hook.policy_gate(requested=7).num_pages == 7


@pytest.mark.usefixtures("in_folder")
def test_module_and_factory_say_in_one_line_what_they_are():
    module = importlib.import_module("balloon_plugin_patience")

    for documented in (module, module.PatiencePolicy):
        first, blank, *_ = documented.__doc__.splitlines()
        assert first.endswith(".")
        assert blank == ""


def test_its_own_tests_pass_in_its_own_folder(tmp_path):
    # A copy, because pytest and its plugins leave things in the folder they run in.
    folder = shutil.copytree(EXAMPLE, tmp_path / EXAMPLE.name)
    # The balloon_plugin that is tested here, installed or not, and none beside it.
    ours = str(Path(balloon_plugin.__file__).parents[1])

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", "pyproject.toml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ours},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
