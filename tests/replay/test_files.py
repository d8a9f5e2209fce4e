"""Recorded histories come back from their files as they were, without what names the machine."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.replay.histories import ROOT, Recorded, files, read


@pytest.fixture
def record() -> Recorded:
    return read(next(file for file in files() if file.name.startswith("callback.")))


def test_history_comes_back_as_written(record: Recorded, tmp_path: Path) -> None:
    content = record.content()
    copy = tmp_path / record.of / record.order / record.file.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(content)
    again = read(copy)
    assert (again.path, again.order, again.of) == ("callback", record.order, record.of)
    assert [run.events for run in again.runs] == [run.events for run in record.runs]
    assert gzip.decompress(record.file.read_bytes()) == gzip.decompress(content), "the same runs, the same text"


def test_file_does_not_name_its_machine() -> None:
    for file in files():
        text = gzip.decompress(file.read_bytes()).decode()
        assert str(ROOT) not in text
        assert '"identity"' not in text
        assert '"stackTrace"' not in text
