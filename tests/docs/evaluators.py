"""Evaluate the blocks of a page, by language; Sybil calls these. A block that is wrong raises AssertionError.

The namespace of an example holds ``environment``, the variables of its commands; ``replacements``, patterns with what
replaces them; and ``done``, the commands that went well already.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml
from sybil import Example

from dev.stack import ROOT
from seedance_temporal import VideoRequest
from seedance_temporal.settings import Settings

# These need an account or a daemon, and are not run: `bash -n` sees whether they are commands at all.
ONLY_PARSED = ("gcloud", "docker")
# The stack runs exactly these, and would not be up without them.
RUN_BY_THE_STACK = ("python worker.py", "python relay.py", "python codec.py")
_OTHERS_VARIABLES = re.compile(
    r"TEMPORAL_(ADDRESS|NAMESPACE|API_KEY|TLS|TLS_CLIENT_(CERT|KEY)_PATH|CONFIG_FILE)|GOOGLE_.+"
)


def evaluate_drawing(example: Example) -> None:
    assert set(example.parsed) & set("─│┌└├→"), "text that is no drawing has a language"


def evaluate_data(example: Example) -> None:
    """Read JSON, which is YAML as well; what has the fields of a request must be one that may be sent."""
    language = example.region.lexemes["language"]
    data = json.loads(example.parsed) if language == "json" else yaml.safe_load(example.parsed)
    assert data
    if isinstance(data, dict) and {"user_id", "route", "model"} <= data.keys():
        VideoRequest.from_dict(data)


def evaluate_script(example: Example) -> None:
    """Check the syntax of JavaScript; ``test_relay_vector.py`` runs the script that is complete."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js on this machine: a script was not checked")
    done = subprocess.run(
        [node, "--check", "-"], input=example.parsed, capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def evaluate_picture(_: Example) -> None:
    """Pass: ``test_pictures.py`` draws all pictures at once."""


# Shell


def evaluate_shell(example: Example) -> None:
    """Parse a block by the shell, and run each command that needs no account."""
    environment, done = example.namespace["environment"], example.namespace["done"]
    code, said = _bash(example.parsed, environment, "-n")
    assert code == 0, said
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for command in _commands_of(example.parsed):
        words = shlex.split(command, comments=True)
        if words[0] in ONLY_PARSED or shlex.join(words) in RUN_BY_THE_STACK:
            continue
        if words[0] == "make":
            assert set(words[1:]) <= targets, f"the Makefile has no {words[1:]}"
            continue
        if words[0] == "export":
            names = [word.split("=")[0] for word in words[1:] if "=" in word]
            assert names
            assert all(_is_variable(name) for name in names), f"{names} are no settings"
        elif not re.fullmatch(r"[A-Z_]+=.*", words[0]):
            assert words[0] in {"python", "node", "curl", "temporal"}, f"nothing here checks {command!r}"
        for pattern, value in example.namespace["replacements"].items():
            command = re.sub(pattern, value, command)
        bare = shlex.join(shlex.split(command, comments=True))
        if words[0] == "python" and bare in done:
            continue
        code, said = _bash(command, environment)
        assert code == 0, f"{command}\n{said}"
        done.add(bare)


def evaluate_session(example: Example) -> None:
    """Run the commands after ``$``, and find the lines below each in its output, in this sequence."""
    for part in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
        command, *lines = part.strip().splitlines()
        code, said = _bash(command, example.namespace["environment"])
        assert code == 0, f"{command}\n{said}"
        shown = [re.escape(line).replace("…", ".*") for line in lines]
        assert lines
        assert re.search("(?:.*\n)*?".join(f"{line}.*\n" for line in shown), said), f"{part}\nis not in\n{said}"


def _commands_of(block: str) -> list[str]:
    """A block's commands, one a line, without comments."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if shlex.split(line, comments=True)]


def _bash(script: str, environment: Mapping[str, str], *flags: str) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", *flags, "-c", script],  # noqa: S607 - the reader's own shell
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env=environment,
        timeout=90,
        check=False,
        encoding="utf-8",
    )
    return done.returncode, done.stdout


def _is_variable(name: str) -> bool:
    return name.lower() in Settings.model_fields or _OTHERS_VARIABLES.fullmatch(name) is not None


# Python


def evaluate_python(example: Example) -> None:
    asyncio.run(run_python(example.parsed, example.path))


async def run_python(text: str, place: str, given: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Run a block as a module, with given names, then its functions that need nothing.

    Return its names; under ``name()`` what a function returned.
    """
    names: dict[str, Any] = {**(given or {}), "__name__": "page"}
    code = compile(text, place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if inspect.iscoroutine(running := eval(code, names)):  # noqa: S307 - our own pages
        await running
    for name, value in list(names.items()):
        is_own = inspect.iscoroutinefunction(value) and value.__module__ == "page"
        if is_own and not inspect.signature(value).parameters:
            names[f"{name}()"] = await value()
    return names


EVALUATORS: dict[str, Callable[[Example], None]] = {
    "python": evaluate_python,
    "sh": evaluate_shell,
    "console": evaluate_session,
    "json": evaluate_data,
    "yaml": evaluate_data,
    "js": evaluate_script,
    "mermaid": evaluate_picture,
    "text": evaluate_drawing,
}
