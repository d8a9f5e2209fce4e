"""Recorded histories come back from their files as they were, without what names the machine."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.replay.histories import ROOT, Recorded, files, read


@pytest.fixture
def record() -> Recorded:
    return read(next(file for file in files() if "timer-polls-without-callbacks" in file.name))


def test_history_comes_back_as_written(record: Recorded, tmp_path: Path) -> None:
    record.write(tmp_path)
    (file,) = tmp_path.iterdir()
    again = read(file)
    assert again.name == record.name
    assert [run.events for run in again.runs] == [run.events for run in record.runs]
    assert record.file is not None
    assert gzip.decompress(record.file.read_bytes()) == gzip.decompress(record.content()), "the same text"


def test_file_does_not_name_its_machine() -> None:
    for file in files():
        text = gzip.decompress(file.read_bytes()).decode()
        assert str(ROOT) not in text
        assert '"identity"' not in text
        assert '"stackTrace"' not in text
