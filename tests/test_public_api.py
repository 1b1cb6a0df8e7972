"""The shop window: what is public is listed, in order, and documented."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from pathlib import Path

import pytest

import balloon_plugin

PACKAGE = Path(balloon_plugin.__file__).parent
DOCS = Path(__file__).parent.parent / "docs"
MODULES = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix()
    for path in PACKAGE.rglob("*.py")
)
"""Every module as a path: ``core``, ``policies/probe``, ``policies/__init__``."""


def dotted(module):
    return f"balloon_plugin.{module.replace('/', '.')}".removesuffix(".__init__")


@functools.cache
def parse(module):
    return ast.parse((PACKAGE / f"{module}.py").read_text())


def assigned(node):
    """Return the names that a statement defines."""
    match node:
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            return [name]
    return []


def is_text(node):
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return bool(text.strip())
    return False


@functools.cache
def documented(module):
    """Return the names at the top of a module that have documentation.

    That of a class or function stands in it, that of a value right behind it.
    """
    body = parse(module).body
    names = set()
    for node, following in zip(body, [*body[1:], None], strict=True):
        is_code = isinstance(node, ast.ClassDef | ast.FunctionDef)
        if is_text(node.body[0]) if is_code else is_text(following):
            names |= set(assigned(node))
    return names


@functools.cache
def imported(module):
    """Return where the names that a module imports from us come from."""
    origins = {}
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith(
            "balloon_plugin"
        ):
            origins |= {alias.name: node.module for alias in node.names}
    return origins


def listed(module):
    for node in parse(module).body:
        if assigned(node) == ["__all__"]:
            return ast.literal_eval(node.value)
    return []


def home(module, name):
    """Return the module in which a name is defined, followed through imports."""
    while name in imported(module):
        path = imported(module)[name].removeprefix("balloon_plugin").lstrip(".")
        module = path.replace(".", "/") or "__init__"
        if module not in MODULES:
            module += "/__init__"
    return module


def in_order(names):
    """Sort as ruff does: constants, classes, the rest."""
    return sorted(
        names,
        key=lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name),
    )


PUBLIC = {module: listed(module) for module in MODULES if listed(module)}


def test_there_is_something_to_look_at():
    assert "make_device" in PUBLIC["__init__"]
    assert "ConfigSpace" in PUBLIC["core"]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_knows(module):
    assert ast.get_docstring(parse(module))


@pytest.mark.parametrize("names", PUBLIC.values(), ids=PUBLIC)
def test_what_is_public_is_listed_once_and_in_order(names):
    assert names == in_order(set(names))


@pytest.mark.parametrize("module", PUBLIC)
def test_what_is_public_exists(module):
    found = importlib.import_module(dotted(module))

    assert set(PUBLIC[module]) <= vars(found).keys()


@pytest.mark.parametrize("module", PUBLIC)
def test_what_is_public_is_documented(module):
    names = PUBLIC[module]

    assert [name for name in names if name not in documented(home(module, name))] == []


def test_the_shop_window_has_no_logic():
    kinds = {type(node) for node in parse("__init__").body}

    assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}


@pytest.mark.parametrize("name", listed("__init__"))
def test_what_is_in_the_shop_window_is_in_the_documentation(name):
    text = (DOCS / "hooks.md").read_text()
    whole_modules = re.findall(r"automodule:: (\S+)\n *:members:\n", text)

    assert dotted(home("__init__", name)) in whole_modules or re.search(
        rf"\b{name}\b", text
    )


def test_the_version_is_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+", balloon_plugin.__version__)
