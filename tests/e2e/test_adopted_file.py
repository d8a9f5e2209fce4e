"""A video that no worker can copy is adopted from a file: by a job that goes on, and after its run was ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dev.stack import Stack
from seedance_temporal import JobState
from tests.e2e.command import starter
from tests.e2e.operator import delete_runs, newest_run
from tests.e2e.requests import a_request, creates_of, until
from tests.support import polling


@pytest.mark.parametrize(
    "how", ["goes on", *(pytest.param(how, marks=pytest.mark.faults) for how in ("is terminated", "is forgotten"))]
)
async def test_adopted_file_is_the_video(stack: Stack, tmp_path: Path, how: str) -> None:
    fault = await stack.ark.fault("download", "refuse", times=None)
    try:
        request = a_request()
        job = await stack.jobs.submit(request)
        # A poll can come before the callback.
        state = await until(stack, job.id, lambda state: state.phase == "storing" and _was_called_back(state))
        assert state.task_id is not None
        if how != "goes on":
            await stack.client.get_workflow_handle(job.id).terminate()

            async def is_told() -> bool:
                return how == "is forgotten" or (await job.state()).detail is not None

            # A busy worker can need more time to load the ended run than a question has.
            await polling.until(is_told, "the ended run answers", seconds=100)
        if how == "is forgotten":
            await delete_runs(stack, job.id, [await newest_run(stack, job.id)])
        path = tmp_path / "from-tos.mp4"
        path.write_bytes(await stack.ark.video_bytes(state.task_id))
        adopted = await starter(
            stack, "adopt-file", job.id, str(path), "--yes", *([] if how == "goes on" else ["--task-succeeded"])
        )
        assert adopted.code == 0, adopted.messages
        assert adopted.answer["result"]["size"] == path.stat().st_size
        assert (await job.result()).video_uri == adopted.answer["result"]["video_uri"]
    finally:
        await stack.ark.clear_faults(fault)
    assert [entry.committed for entry in await creates_of(stack, request)] == [True]
    shown = (await starter(stack, "show", job.id)).answer
    assert shown["phase"] == "stored"
    record = json.loads(
        await stack.bucket.read(shown["result"]["record_uri"].partition(f"{stack.bucket.name}/")[2]) or b""
    )
    assert any("adopted by an operator" in warning for warning in record["warnings"])
    verified = await starter(stack, "audit", job.id, "--verify")
    assert verified.code == 0, verified.answer
    events = [(step["event"], step["source"]) for step in verified.answer["timeline"]]
    assert events[-1] == ("stored", "operator")
    was_noted = ("callback_received", "callback") in events
    assert was_noted == (how != "is forgotten"), "the run's own events are in the record"
    again = await starter(stack, "adopt-file", job.id, str(path), "--yes")
    assert (again.code, again.answer["error"]["problems"][0]["at"]) == (2, "JOB")


def _was_called_back(state: JobState) -> bool:
    return state.detail is not None and any(step.event == "callback_received" for step in state.detail.timeline)
