"""Temporary directories of killed processes are removed by the next worker; all others stay."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from seedance_temporal.media.temporary import remove_abandoned, temporary_directory

HOLDING = """
from seedance_temporal.media.temporary import temporary_directory
with temporary_directory() as folder:
    (folder / "video").write_bytes(bytes(1_000_000))
    print(folder, flush=True)
    input()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, of this process and its children."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def _made_old(path: Path) -> Path:
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))
    return path


def _held() -> tuple[subprocess.Popen[str], Path]:
    """Start a process that holds an old directory until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    return process, _made_old(Path(process.stdout.readline().strip()))


def test_directory_of_killed_process_is_removed(folder: Path) -> None:
    process, path = _held()
    process.kill()
    process.communicate()
    assert (path / "video").stat().st_size == 1_000_000, "nothing else removes it"
    assert remove_abandoned() == 1
    assert list(folder.iterdir()) == []


def test_directory_of_ended_process_is_gone(folder: Path) -> None:
    process, path = _held()
    process.communicate()
    assert not path.exists()
    assert remove_abandoned() == 0


def test_directory_in_use_stays(folder: Path) -> None:
    process, path = _held()
    with process, temporary_directory() as own:
        _made_old(own)
        assert remove_abandoned() == 0
        assert path.exists()
        assert own.exists()
        process.kill()


def test_new_and_foreign_directories_stay(folder: Path) -> None:
    names = ("seedance-temporal-new", "seedance-notes", "other")
    for name in names:
        (folder / name).mkdir()
    for name in names[1:]:
        _made_old(folder / name)
    (folder / "elsewhere").mkdir()
    (folder / "seedance-temporal-link").symlink_to(_made_old(folder / "elsewhere"))
    assert remove_abandoned() == 0
    assert len(list(folder.iterdir())) == 5
