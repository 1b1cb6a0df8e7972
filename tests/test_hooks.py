"""Every hook is a promise: written down in full, callable with types, and tested."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from pathlib import Path

import pytest

from balloon_plugin import hookspecs
from balloon_plugin.calls import Device, ObserverCalls, PolicyCalls
from balloon_plugin.device import Balloon
from balloon_plugin.hookspecs import PROJECT, Host, VirtQueue

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
MARK = f"{PROJECT}_spec"

HOOKS = {
    name: function
    for name, function in vars(hookspecs).items()
    if inspect.isfunction(function) and hasattr(function, MARK)
}
POLICY_HOOKS = sorted(name for name in HOOKS if name.startswith("policy_"))
DEVICE_HOOKS = sorted(set(HOOKS) - set(POLICY_HOOKS) - {"balloon_event"})
PROTOCOLS = [
    (protocol, name)
    for protocol in (Host, VirtQueue)
    for name, member in vars(protocol).items()
    if not name.startswith("_") and (callable(member) or isinstance(member, property))
]


def parameters(function):
    """Return names and annotations of the parameters, without ``self``."""
    found = inspect.signature(function).parameters.values()
    return [(each.name, each.annotation) for each in found if each.name != "self"]


def doc(name):
    return inspect.getdoc(HOOKS[name])


def listed_in_docs():
    """Return the names after ``:members:`` of the hook specifications."""
    text = (DOCS / "hooks.md").read_text()
    section = text.partition("automodule:: balloon_plugin.hookspecs")[2]
    members = section.partition("```")[0].partition(":members:")[2]
    return re.findall(r"\w+", members)


@functools.cache
def named_in_tests():
    """Return all names and whole texts in the code of tests other than this one."""
    found = set()
    for path in TESTS.glob("test_*.py"):
        if path.name == Path(__file__).name:
            continue
        tree = ast.parse(path.read_text())
        for test in ast.walk(tree):
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
                found |= {token for node in ast.walk(test) for token in tokens(node)}
    return found


def tokens(node):
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name) | ast.FunctionDef(name=name):
            return [name]
        case ast.Constant(value=str(text)):
            return [text]
    return []


def test_there_are_hooks_of_all_three_kinds():
    assert {"realize", "queue_notify", "load"} <= set(DEVICE_HOOKS)
    assert {"policy_observe", "policy_gate", "policy_verdict"} <= set(POLICY_HOOKS)
    assert "balloon_event" in HOOKS


# --- written down -------------------------------------------------------------------


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_has_a_summary(name):
    summary, *rest = doc(name).splitlines()

    assert re.fullmatch(r"[A-Z].*\.", summary)
    assert rest[:1] in ([], [""])


@pytest.mark.parametrize("name", HOOKS)
def test_all_parameters_of_a_hook_are_described_and_no_others(name):
    described = re.findall(r"^:param (\w+):", doc(name), re.MULTILINE)

    assert described == [parameter for parameter, _ in parameters(HOOKS[name])]


@pytest.mark.parametrize("name", HOOKS)
def test_what_a_hook_answers_is_described(name):
    answers = inspect.signature(HOOKS[name]).return_annotation != "None"

    assert answers == bool(HOOKS[name].__dict__[MARK]["firstresult"])
    if answers:
        assert re.search(r"^:returns:|^Return ", doc(name), re.MULTILINE)


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_says_since_when_it_is_there(name):
    assert re.search(r"^\.\. versionadded:: \d+\.\d+$", doc(name), re.MULTILINE)


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_typed(name):
    annotations = [annotation for _, annotation in parameters(HOOKS[name])]

    assert inspect.Parameter.empty not in annotations
    assert (
        inspect.signature(HOOKS[name]).return_annotation is not inspect.Signature.empty
    )


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_has_nothing_in_it(name):
    (function,) = ast.parse(inspect.getsource(HOOKS[name])).body

    assert len(function.body) == 1


@pytest.mark.parametrize(
    ("protocol", "name"),
    PROTOCOLS,
    ids=[f"{protocol.__name__}.{name}" for protocol, name in PROTOCOLS],
)
def test_a_hosts_side_is_written_down_too(protocol, name):
    assert inspect.getdoc(vars(protocol)[name])


def test_all_hooks_and_protocols_are_in_the_documentation():
    assert sorted(listed_in_docs()) == sorted([*HOOKS, "Host", "VirtQueue"])


# --- callable with types ------------------------------------------------------------


@pytest.mark.parametrize("name", DEVICE_HOOKS)
def test_a_device_hook_is_a_method_of_the_device(name):
    method = getattr(Device, name)

    assert parameters(method) == parameters(HOOKS[name])
    returned = inspect.signature(method).return_annotation
    assert returned == inspect.signature(HOOKS[name]).return_annotation


@pytest.mark.parametrize("name", DEVICE_HOOKS)
def test_a_device_hook_is_implemented_by_the_balloon(name):
    method = getattr(Balloon, name)

    assert hasattr(method, f"{PROJECT}_impl")
    assert parameters(method) == parameters(HOOKS[name])


@pytest.mark.parametrize("name", POLICY_HOOKS)
def test_a_policy_hook_is_a_method_of_its_calls(name):
    method = getattr(PolicyCalls, name.removeprefix("policy_"))

    assert parameters(method) == parameters(HOOKS[name])


def test_the_observer_hook_is_a_method_of_its_calls():
    assert parameters(ObserverCalls.emit) == parameters(HOOKS["balloon_event"])


def test_the_device_has_no_other_hooks():
    methods = [
        name
        for name, _ in inspect.getmembers(Device, inspect.isfunction)
        if not name.startswith("_")
    ]

    assert methods == DEVICE_HOOKS


# --- tested -------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_named_by_a_test(name):
    assert name in named_in_tests()
