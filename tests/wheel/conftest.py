"""The wheel, built from this checkout, and the clean environments that it is installed into."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Return the output of a command; its failure fails the test."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, encoding="utf-8", timeout=180, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    # Not in isolation: the builder is pinned like everything else, and nothing is downloaded for it.
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="session")
def pins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lock file as constraints: they choose versions, and install nothing."""
    locked = re.findall(r"^([\w.-]+==[^\\\n]+?) *\\$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert len(locked) > 20
    path = tmp_path_factory.mktemp("pins") / "constraints.txt"
    path.write_text("\n".join(locked))
    return path


def install(python: Path, wanted: str, pins: Path) -> None:
    # Not compiled: that takes longer than all the rest, and each file is used once.
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-compile", "--constraint", pins, wanted)


@pytest.fixture(scope="session")
def base_python(tmp_path_factory: pytest.TempPathFactory, wheel: Path, pins: Path) -> Path:
    """The interpreter of a new environment that holds the wheel, and what it asks for."""
    folder = tmp_path_factory.mktemp("base")
    venv.create(folder, with_pip=False)
    install(folder / "bin" / "python", str(wheel), pins)
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def relay_python(tmp_path_factory: pytest.TempPathFactory, base_python: Path, wheel: Path, pins: Path) -> Path:
    """The same with the extra `relay`. It lies over the other one, which does not see it."""
    folder = tmp_path_factory.mktemp("relay")
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    (below,) = base_python.parents[1].glob("lib/python*/site-packages")
    (packages / "below.pth").write_text(f"{below}\n")
    install(folder / "bin" / "python", f"{wheel}[relay]", pins)
    return folder / "bin" / "python"
