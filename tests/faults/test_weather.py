"""The copy under failing hosts and buckets: one verified object in the end, and errors that name the paid task."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.e2e.requests import until_committed
from tests.faults.cases import PATIENCE, Case, Harness, all_of
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


async def _complaint(case: Case) -> str:
    """Return the last failure of the pending copy."""
    run = await case.client.get_workflow_handle(case.job_id).describe()
    return " ".join(pending.last_failure.message for pending in run.raw_description.pending_activities)


async def _result_host(harness: Harness, report: AddRow, what: str) -> None:
    fault, fields = RESULT_HOST[what]
    ark = harness.stack.ark
    async with harness.case("weather") as case:
        await case.start_worker()
        await ark.fault("task", "stay_running", contains=case.request.prompt)
        await case.submit()
        task_id = await until_committed(case.stack, case.request)
        armed = await ark.fault("download", fault, task_id=task_id, **fields)
        await ark.release(task_id)
        complaints = ""
        async with asyncio.timeout(PATIENCE):
            while not complaints and (await case.jobs.job(case.job_id).state()).result is None:
                complaints = await _complaint(case)
                await asyncio.sleep(0.2)
        assert not complaints or (task_id in complaints and "X-Tos" not in complaints), complaints
        row = await case.stored_once(await case.settle())
        fired = len(await ark.fired(armed))
        assert fired, f"{what}: the fault did not happen"
        report(TITLE, {"weather": f"result host: {what}", "fired": f"{fired} times", "paid": row["paid"]})


async def _bucket(harness: Harness, report: AddRow, what: str) -> None:
    faults = BUCKET[what]
    async with harness.case("weather") as case:
        await case.start_faulty(WEATHER=json.dumps(faults))
        await case.submit()
        await case.until_fired(faults.get("times", 1))
        if faults["kind"] == "away":
            await asyncio.sleep(_AWAY_SECONDS)
            assert (await case.jobs.job(case.job_id).state()).detail is not None, "its worker answers"
            case.marker.with_suffix(".back").touch()
        row = await case.stored_once(await case.settle())
        report(TITLE, {"weather": f"bucket: {what}", "fired": f"{len(case.fired)} times", "paid": row["paid"]})


async def _spoilt(harness: Harness, report: AddRow) -> None:
    async with harness.case("weather") as case:
        await case.start_faulty(SPOIL="1")
        await case.submit()
        await case.until_fired()
        row = await case.stored_once(await case.settle())
        what = "result host: half of the MP4, and the right length"
        report(TITLE, {"weather": what, "fired": f"{len(case.fired)} times", "paid": row["paid"]})


async def test_result_host_faults_lose_no_video(harness: Harness, report: AddRow) -> None:
    await all_of([*(_result_host(harness, report, what) for what in RESULT_HOST), _spoilt(harness, report)])


async def test_bucket_outages_never_pay_twice(harness: Harness, report: AddRow) -> None:
    await all_of([_bucket(harness, report, what) for what in BUCKET])
