"""The recorded histories: a folder for each set, a file for each test whose jobs took a way of their own.

A set is named after the version whose code recorded it. Older sets are never written again: runs of that code may
still go on somewhere.
"""

from __future__ import annotations

import base64
import gzip
import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory

FOLDER = Path(__file__).parent / "histories"
ROOT = FOLDER.parents[2]
_ENDING = ".json.gz"
# They name the machine and the checkout that recorded them, and no replay reads them.
_LEFT_OUT = {"identity", "stackTrace"}
_TEXT = "text of data"


def present_set() -> str:
    """Return the name of the set that the present code records: its version."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def sets() -> list[str]:
    """Return the names of all sets."""
    return sorted(folder.name for folder in FOLDER.iterdir() if folder.is_dir())


@dataclass(frozen=True)
class Recorded:
    """The runs of one test's jobs.

    Attributes:
        name: That of the test.
        runs: Their histories, a run before those that it was continued in.
        file: Where they were read from.
    """

    name: str
    runs: tuple[WorkflowHistory, ...]
    file: Path | None = None

    def content(self) -> bytes:
        """Return what the file holds, the same bytes for the same runs."""
        runs = [{"workflow_id": run.workflow_id, **run.to_json_dict()} for run in self.runs]
        text = json.dumps(_written(runs), separators=(",", ":"), sort_keys=True)
        return gzip.compress(text.encode(), mtime=0)

    def write(self, folder: Path) -> None:
        """Write a file into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}{_ENDING}").write_bytes(self.content())


def read(file: Path) -> Recorded:
    """Read the runs of one test's jobs."""
    runs = json.loads(gzip.decompress(file.read_bytes()))
    histories = tuple(WorkflowHistory.from_json(run.pop("workflow_id"), _history(run)) for run in runs)
    return Recorded(file.name.removesuffix(_ENDING), histories, file)


def shapes_file(of: str) -> Path:
    """Return the file with the fields of all that crossed Temporal when a set was recorded."""
    return FOLDER / of / "fields.json"


def files(of: str | None = None) -> list[Path]:
    """Return the files of a set; by default of all."""
    return sorted(FOLDER.glob(f"{of or '*'}/*{_ENDING}"))


def recorded() -> list[Recorded]:
    """Return what was recorded in all sets."""
    return [read(file) for file in files()]


def events_of(records: Iterable[Recorded]) -> list[HistoryEvent]:
    """Return the events of all runs."""
    return [event for record in records for run in record.runs for event in run.events]


def _written(value: Any) -> Any:
    """Return what a file holds of a history: payloads as text, which can be read, and compressed well."""
    if isinstance(value, list):
        return [_written(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "data" in value and "metadata" in value:
        return {"metadata": value["metadata"], _TEXT: base64.b64decode(value["data"]).decode()}
    if value.get("kind") == "TASK_QUEUE_KIND_STICKY":
        return {"kind": value["kind"]}  # its name is that of a process
    return {name: _written(one) for name, one in value.items() if name not in _LEFT_OUT}


def _history(value: Any) -> Any:
    """Return the history again."""
    if isinstance(value, list):
        return [_history(one) for one in value]
    if not isinstance(value, dict):
        return value
    if _TEXT in value:
        return {"metadata": value["metadata"], "data": base64.b64encode(value[_TEXT].encode()).decode()}
    return {name: _history(one) for name, one in value.items()}
