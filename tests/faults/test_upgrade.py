"""An upgrade in the middle of jobs: what the code of an earlier commit began, the present code finishes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory

from dev.process import Child
from dev.stack import Stack, running_stack
from seedance_temporal import VideoRequest
from seedance_temporal.identity import job_id_of
from tests.e2e.invariants import check_invariants
from tests.e2e.requests import creates_of, until_ended
from tests.faults.report import AddRow
from tests.faults.upgrade import BEFORE, PHASES, SETTINGS, Phase, Stage, code_of
from tests.support.result_host import result_host

TITLE = "An upgrade"
# To the end of a create, which the worker awaits.
STOP_SECONDS = 90.0
# They last a few seconds only, so these jobs begin when the others have come to their phase.
LAST = ("recovering", "creating")
# This one sends a create that the provider refuses, at no cost, before the one that it accepts.
REFUSED_FIRST = {"waiting for the account"}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout of the earlier commit, which CI must have, and a shallow clone has not."""
    try:
        return code_of(BEFORE, tmp_path_factory.mktemp("before"))
    except LookupError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest_asyncio.fixture(loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    async with running_stack(speed=60, workers=False, settings=SETTINGS) as stack, result_host() as host:
        # The listers of two workers share the account; creates and polls are not what is tested.
        await stack.ark.configure(list_per_second=None, get_per_second=None, running_limit=100, create_per_minute=None)
        yield Stage(stack, host)


async def exchanged(stage: Stage, before: Path, names: Collection[str]) -> tuple[dict[str, VideoRequest], list[Child]]:
    """Bring a job to each phase, exchange the worker, and return when all jobs have ended."""
    stack = stage.stack
    # Without a listing, a lost create stays unknown.
    await stack.ark.fault("list", "503", times=None)
    # The older code does not know it.
    newer = {"SEEDANCE_PROBE_SECONDS": stack.environment.pop("SEEDANCE_PROBE_SECONDS")}
    workers = [await stack.start_worker("worker-before", before)]
    requests = dict[str, VideoRequest]()
    async with AsyncExitStack() as phases:

        async def enter(phase: Phase) -> VideoRequest:
            return await phases.enter_async_context(phase(stage))

        for together in ([name for name in names if name not in LAST], *[[name] for name in LAST if name in names]):
            requests |= zip(together, await asyncio.gather(*(enter(PHASES[name]) for name in together)), strict=True)
        if "creating" in requests:
            assert (await stack.jobs.job(job_id_of(requests["creating"])).state()).phase == "creating"
        workers[0].process.terminate()
        assert await asyncio.wait_for(workers[0].process.wait(), STOP_SECONDS) == 0, "it ends in order"
        await stack.ark.clear_faults()
        workers.append(await stack.start_worker("worker-now", **newer))
        await unless_a_task_fails(stack, phases.aclose())
    ends = asyncio.gather(*(until_ended(stack, job_id_of(request)) for request in requests.values()))
    await unless_a_task_fails(stack, ends)
    return requests, workers


async def unless_a_task_fails(stack: Stack, work: Awaitable[object]) -> None:
    """Await some work, but not where a workflow task fails: its job would never end.

    Raises:
        AssertionError: One failed, with the reason.
    """
    waiting = {asyncio.ensure_future(work), asyncio.create_task(_a_task_fails(stack))}
    done, going_on = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in going_on:
        task.cancel()
    await asyncio.gather(*going_on, return_exceptions=True)
    for task in done:
        task.result()


async def _a_task_fails(stack: Stack) -> None:
    while True:
        for history in await histories_of(stack):
            assert_no_task_failed(history)
        await asyncio.sleep(1)


async def histories_of(stack: Stack) -> list[WorkflowHistory]:
    """Return the histories of all runs, of whichever workflow."""
    runs = [run async for run in stack.client.list_workflows()]
    handles = [stack.client.get_workflow_handle(run.id, run_id=run.run_id) for run in runs]
    return await asyncio.gather(*(handle.fetch_history() for handle in handles))


def assert_no_task_failed(history: WorkflowHistory) -> None:
    for event in history.events:
        reason = event.workflow_task_failed_event_attributes.failure.message
        assert event.event_type != EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED, f"{history.workflow_id}: {reason}"


def assert_both_worked(job_id: str, histories: Sequence[WorkflowHistory], workers: Sequence[Child]) -> None:
    """Assert that both workers did workflow tasks of a job, or of what was started for it."""
    events = [event for history in histories if history.workflow_id.startswith(job_id) for event in history.events]
    done = [e for e in events if e.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED]
    processes = {e.workflow_task_completed_event_attributes.identity.partition("@")[0] for e in done}
    assert {str(worker.process.pid) for worker in workers} <= processes, f"not both workers took part in {job_id}"


async def _upgraded(stage: Stage, before: Path, names: Collection[str], report: AddRow) -> None:
    jobs, workers = await exchanged(stage, before, names)
    histories = await histories_of(stage.stack)
    for history in histories:
        assert_no_task_failed(history)
    for name, request in jobs.items():
        job_id = job_id_of(request)
        state = await stage.stack.jobs.job(job_id).state()
        creates = await creates_of(stage.stack, request)
        assert state.phase == "stored", f"{name}: {state}"
        assert sum(create.committed for create in creates) == 1, f"{name}: paid once"
        assert len(creates) == 1 + (name in REFUSED_FIRST), f"{name}: {len(creates)} POSTs"
        assert_both_worked(job_id, histories, workers)
        report(TITLE, {"phase": name, "POSTs": len(creates), "paid": 1, "end": state.phase})
    await check_invariants(stage.stack)


@pytest.mark.timeout(240)
async def test_running_job_is_finished_by_later_code(stage: Stage, before: Path, report: AddRow) -> None:
    await _upgraded(stage, before, ["running"], report)


@pytest.mark.faults
@pytest.mark.timeout(600)
async def test_jobs_of_all_phases_are_finished_by_later_code(stage: Stage, before: Path, report: AddRow) -> None:
    await _upgraded(stage, before, PHASES, report)


def test_missing_commit_is_named(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"no commit 0{40}; git fetch --unshallow"):
        code_of("0" * 40, tmp_path)
