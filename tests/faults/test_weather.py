"""The copy under failing hosts and buckets: one verified object in the end, and errors that name the paid task."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from seedance_temporal import JobState
from tests.e2e.requests import creates_of
from tests.faults.cells import PATIENCE, Cell, Stage
from tests.faults.report import AddRow

TITLE = "The copy under bad weather"
pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

RESULT_HOST: dict[str, tuple[str, dict[str, Any]]] = {
    "truncated": ("truncate", {"times": 2}),
    "truncated, for longer than it is resumed": ("truncate", {"times": 7}),
    "reset": ("reset", {"times": 2}),
    "a drip": ("drip", {"seconds": 8}),
    "video_not_ready": ("not_ready", {"times": 2}),
    "403": ("refuse", {"times": 2}),
    "404": ("404", {"times": 2}),
    "503": ("503", {"times": 2}),
    "the wrong length": ("wrong_length", {"times": 2}),
    "HTML": ("html", {"times": 2}),
    "a hanging host": ("hang", {"seconds": 5}),
}
BUCKET: dict[str, dict[str, Any]] = {
    "503 to the claim": {"kind": "503", "names": ".claim.json", "times": 2},
    "503 to the video": {"kind": "503", "names": "/output.mp4", "times": 3},
    "503 to the record": {"kind": "503", "names": "record.json", "times": 3},
    "the claim's answer lost": {"kind": "lost", "names": ".claim.json", "times": 1},
    "the outcome's answer lost": {"kind": "lost", "names": ".outcome.json", "times": 1},
    "the finished upload's answer lost": {"kind": "lost", "names": "/output.mp4", "times": 1},
    "the record's answer lost": {"kind": "lost", "names": "record.json", "times": 1},
    "away from the claim on": {"kind": "away", "names": ".claim.json"},
    "away from the outcome on": {"kind": "away", "names": ".outcome.json"},
    "away from the upload on": {"kind": "away", "names": "/output.mp4"},
    "away from the record on": {"kind": "away", "names": "record.json"},
}
_AWAY_SECONDS = 20.0


async def _task_of(cell: Cell) -> str:
    async with asyncio.timeout(PATIENCE):
        while True:
            tasks = [entry.task_id for entry in await creates_of(cell.stack, cell.request) if entry.task_id]
            if tasks:
                return tasks[0]
            await asyncio.sleep(0.1)


async def _complaint(cell: Cell) -> str:
    """Return the last failure of the pending copy."""
    run = await cell.client.get_workflow_handle(cell.job_id).describe()
    return " ".join(pending.last_failure.message for pending in run.raw_description.pending_activities)


async def _result_host(stage: Stage, report: AddRow, what: str) -> None:
    fault, fields = RESULT_HOST[what]
    cell = await stage.cell("weather")
    ark = stage.stack.ark
    try:
        await cell.start_worker()
        await ark.fault("task", "stay_running", contains=cell.request.prompt)
        await cell.submit()
        task_id = await _task_of(cell)
        armed = await ark.fault("download", fault, task_id=task_id, **fields)
        await ark.release(task_id)
        complaints = ""
        async with asyncio.timeout(PATIENCE):
            while not complaints and (await cell.jobs.get(cell.job_id)).result is None:
                complaints = await _complaint(cell)
                await asyncio.sleep(0.2)
        assert not complaints or (task_id in complaints and "X-Tos" not in complaints), complaints
        row = await cell.stored_once(await cell.settle())
        fired = len(await ark.fired(armed))
        assert fired, f"{what}: the fault did not happen"
        report(TITLE, {"weather": f"result host: {what}", "fired": f"{fired} times", "paid": row["paid"]})
    finally:
        await cell.close()


async def _bucket(stage: Stage, report: AddRow, what: str) -> None:
    weather = BUCKET[what]
    cell = await stage.cell("weather")
    try:
        await cell.start_faulty(WEATHER=json.dumps(weather))
        await cell.submit()
        await cell.until_fired(weather.get("times", 1))
        if weather["kind"] == "away":
            await asyncio.sleep(_AWAY_SECONDS)
            assert isinstance(await cell.jobs.get(cell.job_id), JobState), "the job waits, and tells"
            cell.marker.with_suffix(".back").touch()
        row = await cell.stored_once(await cell.settle())
        report(TITLE, {"weather": f"bucket: {what}", "fired": f"{len(cell.fired)} times", "paid": row["paid"]})
    finally:
        await cell.close()


async def _spoilt(stage: Stage, report: AddRow) -> None:
    cell = await stage.cell("weather")
    try:
        await cell.start_faulty(SPOIL="1")
        await cell.submit()
        await cell.until_fired()
        row = await cell.stored_once(await cell.settle())
        what = "result host: half of the MP4, and the right length"
        report(TITLE, {"weather": what, "fired": f"{len(cell.fired)} times", "paid": row["paid"]})
    finally:
        await cell.close()


async def test_result_host_faults_lose_no_video(stage: Stage, report: AddRow) -> None:
    await _all([*(_result_host(stage, report, what) for what in RESULT_HOST), _spoilt(stage, report)])


async def test_bucket_outages_never_pay_twice(stage: Stage, report: AddRow) -> None:
    await _all([_bucket(stage, report, what) for what in BUCKET])


async def _all(cells: list[Any]) -> None:
    wrong = [error for error in await asyncio.gather(*cells, return_exceptions=True) if isinstance(error, Exception)]
    if wrong:
        raise ExceptionGroup(f"{len(wrong)} of {len(cells)} cells", wrong)
