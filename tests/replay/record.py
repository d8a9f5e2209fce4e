"""Record the histories that ``tests/workflows`` makes: ``python -m tests.replay.record``, or ``make histories``.

Of tests whose jobs take the same way through the same lines, the first one's is kept. The set is that of the present
version, unless ``--set`` names another. Further arguments choose tests, as those of pytest do: then only theirs are
written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from temporalio.client import WorkflowHistory

from tests.replay.crossing import present_shapes
from tests.replay.guard import unlike
from tests.replay.histories import FOLDER, ROOT, Recorded, files, present_set, read, shapes_file
from tests.replay.lines import Line, noted
from tests.replay.replaying import begun, runs_of
from tests.workflows.harness import Harness

_FOLDER = "RECORDED_HISTORIES"


async def record(harness: Harness) -> None:
    """Write the runs of a test's jobs that have begun, where histories are being recorded."""
    folder = os.environ.get(_FOLDER)
    if folder is None:
        return
    histories = [WorkflowHistory(job.id, events) for job in harness.jobs for events in await runs_of(job)]
    runs = begun(histories)
    # Such as "tests/workflows/test_create.py::test_created_task_is_followed (teardown)".
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition("/test_")[2].rpartition(" ")[0]
    name = re.sub(r"[^a-z0-9]+", "-", test.replace(".py::test_", "-").lower()).strip("-")
    Recorded(name, tuple(runs)).write(Path(folder))


def _way(recorded: Recorded) -> list[tuple[object, ...]]:
    """Return what tells one way of jobs from another: their events, and what they show."""
    way: list[tuple[object, ...]] = []
    for run in recorded.runs:
        for event in run.events:
            upserted = event.upsert_workflow_search_attributes_event_attributes.search_attributes.indexed_fields
            way.append(
                (
                    event.event_type,
                    event.activity_task_scheduled_event_attributes.activity_type.name,
                    event.workflow_execution_signaled_event_attributes.signal_name,
                    *(upserted[name].data for name in ("SeedancePhase", "SeedanceAttention") if name in upserted),
                )
            )
    return way


async def _worth_keeping(found: Iterable[Recorded], kept: Iterable[Recorded]) -> list[Recorded]:
    """Return the histories that go another way than those before them, or run other lines."""
    ways, seen, worth = {repr(_way(recorded)) for recorded in kept}, set[Line](), list[Recorded]()
    for recorded in found:
        lines = set[Line]()
        with noted(lines, ROOT / "workflows"):
            # A test that shortens times can take a way that jobs with the real times do not.
            followed = not await unlike([recorded])
        way = repr(_way(recorded))
        if followed and (way not in ways or lines - seen):
            ways.add(way)
            seen |= lines
            worth.append(recorded)
    return worth


def _is_released(of: str) -> bool:
    git = shutil.which("git")
    if git is None:
        return False
    tags = subprocess.run([git, "tag", "--list", f"v{of}"], cwd=ROOT, capture_output=True, check=False)
    return bool(tags.stdout.strip())


def main() -> int:
    """Record; return the exit code of the tests."""
    parser = argparse.ArgumentParser(description="Record the histories that tests/workflows makes.")
    parser.add_argument("--set", default=present_set(), help="its name; by default the present version")
    arguments, tests = parser.parse_known_args()
    if _is_released(arguments.set):
        parser.error(f"{arguments.set} is released: jobs of it may go on. Change the version, or name another --set")
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)
    folder = FOLDER / arguments.set
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "faults or not faults"]
        command += tests or ["tests/workflows"]
        code = subprocess.run(command, cwd=ROOT, env=os.environ | {_FOLDER: temporary}, check=False).returncode
        if not tests:
            for file in files(arguments.set):
                file.unlink()
        found = [read(file) for file in sorted(Path(temporary).iterdir())]
        for recorded in asyncio.run(_worth_keeping(found, [read(file) for file in files(arguments.set)])):
            recorded.write(folder)
    shapes_file(arguments.set).write_text(json.dumps(present_shapes(), indent=1, sort_keys=True) + "\n")
    size = sum(file.stat().st_size for file in files(arguments.set))
    sys.stdout.write(f"{len(files(arguments.set))} files, {size / 1e3:.0f} kB, in {folder}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
