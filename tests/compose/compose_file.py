"""Read ``docker-compose.yml`` as Compose does, as far as the file goes: interpolation, pass-through, profiles."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
LOCAL_ENV = ROOT / "deploy" / "local.env"
EXAMPLE_ENV = ROOT / ".env.example"
OURS = "seedance-temporal"

_REFERENCE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<how>:[-?+])(?P<word>[^{}$]*))?\}|(?P<other>.?))")


class Missing(Exception):
    """A variable that the file insists on is not set."""


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$$``, ``${NAME}``, ``${NAME:-default}``, ``${NAME:?problem}`` and ``${NAME:+replacement}``."""

    def value(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        if match["name"] is None:
            raise ValueError(f"a form that is not known here: {text!r}")
        given = variables.get(match["name"], "")
        match match["how"]:
            case ":-":
                return given or match["word"]
            case ":+":
                return match["word"] if given else ""
            case ":?" if not given:
                raise Missing(f"{match['name']}: {match['word']}")
        return given

    return _REFERENCE.sub(value, text)


def raw() -> dict[str, Any]:
    """The file as YAML, nothing interpolated."""
    content = yaml.safe_load(FILE.read_text())
    assert isinstance(content, dict)
    return content


def read_env(path: Path) -> dict[str, str]:
    """What ``--env-file`` gives."""
    return {name: value or "" for name, value in dotenv_values(path, interpolate=False).items()}


def local_variables() -> dict[str, str]:
    return read_env(LOCAL_ENV)


@dataclass(frozen=True)
class Service:
    """A service with its variables filled in.

    Attributes:
        environment: What the container gets. A variable without a value in the file is there only where it is set.
        given: The same names, with None for those that may be passed through.
    """

    name: str
    content: dict[str, Any]
    environment: dict[str, str]
    given: dict[str, str | None]

    @property
    def image(self) -> str:
        return str(self.content["image"])

    @property
    def is_ours(self) -> bool:
        return self.image.startswith(OURS)

    @property
    def command(self) -> list[str]:
        command = self.content["command"]
        assert isinstance(command, list), f"{self.name}: a list needs no shell"
        return [str(part) for part in command]

    @property
    def depends_on(self) -> dict[str, dict[str, Any]]:
        depends_on = self.content.get("depends_on", {})
        assert isinstance(depends_on, dict), f"{self.name}: depends_on says no conditions"
        return depends_on

    @property
    def is_one_shot(self) -> bool:
        return self.content.get("restart") == "no"


def services(variables: Mapping[str, str], profiles: Collection[str] = ()) -> dict[str, Service]:
    """Return the services that Compose starts. The variables of all profiles must be set, as Compose demands."""
    filled = _filled(raw()["services"], variables)
    assert isinstance(filled, dict)
    found = {}
    for name, content in filled.items():
        if set(content.get("profiles", ())) <= set(profiles):
            listed = content.get("environment", {})
            assert isinstance(listed, dict)
            given = {key: None if value is None else str(value) for key, value in listed.items()}
            passed = {key: variables.get(key) if value is None else value for key, value in given.items()}
            environment = {key: value for key, value in passed.items() if value is not None}
            found[name] = Service(name, content, environment, given)
    return found


def _filled(node: Any, variables: Mapping[str, str]) -> Any:
    match node:
        case str():
            return interpolate(node, variables)
        case dict():
            return {key: _filled(value, variables) for key, value in node.items()}
        case list():
            return [_filled(value, variables) for value in node]
    return node


def seconds(duration: str) -> float:
    """Compose's durations, such as ``3m30s``, and Temporal's days."""
    parts = re.findall(r"(\d+)([dhms])", duration)
    assert "".join(number + unit for number, unit in parts) == duration, duration
    return float(sum(int(number) * {"d": 86_400, "h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts))
