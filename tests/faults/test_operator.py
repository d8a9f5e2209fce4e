"""The operator matrix: no operation on runs in Temporal's UI pays twice, or loses a paid video."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import PauseActivityRequest, ResetActivityRequest, UnpauseActivityRequest
from temporalio.service import RPCError

from dev.stack import Stack
from seedance_temporal import JobState, VideoRequest
from tests.e2e import scenarios
from tests.e2e.command import starter
from tests.e2e.operator import delete_runs, newest_run, reset, reset_points, runs_of
from tests.e2e.requests import a_request, creates_of, until, until_ended, until_posted
from tests.e2e.scenarios import Scenario
from tests.faults.cases import PATIENCE, Harness
from tests.faults.report import AddRow
from tests.support.jobs import found

TITLE = "The operator matrix"
pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


def _what_counts(job: JobState) -> object:
    return job.result or job.error


async def _tasks(stack: Stack, request: VideoRequest) -> int:
    return sum(entry.committed for entry in await creates_of(stack, request))


async def _resolved_as_not_created(stack: Stack, request: VideoRequest) -> JobState:
    """By an operator, or by listings: the first after the window decides."""
    await stack.ark.fault("create", "reset_before_commit", contains=request.prompt)
    job_id = (await stack.jobs.submit(request)).id
    async with asyncio.timeout(PATIENCE):
        while await _tasks(stack, request) == 0:
            await stack.jobs.job(job_id).resolve(attempt=1, action="not_created")
            await asyncio.sleep(2)
    return await until_ended(stack, job_id)


async def _resubmitted_after_lost(stack: Stack, request: VideoRequest) -> JobState:
    first = await scenarios.given_up(stack, request)
    await stack.jobs.job(first.job_id).resubmit(attempt=1, accept_second_charge=True)
    return await until_ended(stack, first.job_id)


# With the phase and the number of tasks in the end.
SCENARIOS: dict[str, tuple[Scenario, str, int]] = {
    "stored": (scenarios.stored, "stored", 1),
    "stored after its answer was lost": (scenarios.found, "stored", 1),
    "refused": (scenarios.refused, "failed", 0),
    "failed": (scenarios.failed, "failed", 1),
    "cancelled while queued": (scenarios.cancelled, "cancelled", 1),
    "resolved as lost": (scenarios.given_up, "lost", 0),
    "resolved as not created": (_resolved_as_not_created, "stored", 1),
    "resubmitted after a failure": (scenarios.resubmitted, "stored", 2),
    "resubmitted after lost": (_resubmitted_after_lost, "stored", 1),
}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_reset_to_every_point(served: Harness, report: AddRow, name: str) -> None:
    """Reset every run of the job, the first one as well where another one followed."""
    scenario, phase, paid = SCENARIOS[name]
    stack, request = served.stack, a_request()
    ended = await scenario(stack, request)
    assert ended.phase in {phase, "refused"}
    assert await _tasks(stack, request) == paid
    posts = len(await creates_of(stack, request))

    newest, runs = await newest_run(stack, ended.job_id), await runs_of(stack, ended.job_id)
    resets = 0
    for run_id in sorted(runs):
        for point in await reset_points(stack, ended.job_id, run_id):
            await reset(stack, ended.job_id, run_id, point)
            after = await until_ended(stack, ended.job_id)
            if run_id != newest and after.error is not None:
                # The older run ends by its own history. Repeating a resubmit costs nothing.
                await stack.jobs.job(ended.job_id).resubmit(attempt=1, accept_second_charge=True)
                after = await until_ended(stack, ended.job_id)
            assert _what_counts(after) == _what_counts(ended), f"reset to {point} changed the end"
            assert len(await creates_of(stack, request)) == posts, f"reset to {point} sent a create"
            resets += 1
    assert resets > len(runs), "there was more than one point to go back to"
    report(TITLE, {"job": name, "what an operator does": f"{resets} Resets", "tasks": paid, "end": phase})


async def test_reset_after_late_cancel(served: Harness, report: AddRow) -> None:
    """Its task runs, and is billed: the video is stored after a Reset to any point."""
    stack, request = served.stack, a_request()
    job_id = await _running(stack, request)
    assert (await stack.jobs.job(job_id).cancel()).outcome == "running_will_finish"
    run_id = await newest_run(stack, job_id)
    ends = []
    for point in await reset_points(stack, job_id, run_id):
        await reset(stack, job_id, run_id, point)
        await asyncio.sleep(3)
        ends.append((point, (await stack.jobs.job(job_id).state()).phase))
    await stack.ark.release()
    ended = await until_ended(stack, job_id)
    (entry,) = await creates_of(stack, request)
    try:
        assert ended.phase == "stored", f"task {entry.task_id} is paid, and the job says: {ended.error}"
        assert not [end for end in ends if end[1] == "cancelled"], f"task {entry.task_id} runs, and is paid: {ends}"
    finally:
        await until_ended(stack, (await stack.jobs.submit(request)).id)
    report(TITLE, {"job": "running, cancel refused", "what an operator does": "Resets", "tasks": 1, "end": "stored"})


async def test_reset_of_followed_run(served: Harness, report: AddRow) -> None:
    """The second attempt is under way: the reset run goes on with that one."""
    stack, request = served.stack, a_request()
    first = await scenarios.failed(stack, request)
    first_run = await newest_run(stack, first.job_id)
    await stack.ark.fault("task", "stay_running", contains=request.prompt)
    await stack.jobs.job(first.job_id).resubmit(attempt=1)
    await until(stack, first.job_id, lambda job: job.phase == "running")
    points = await reset_points(stack, first.job_id, first_run)
    ends = []
    try:
        for point in points[1:-1]:
            await reset(stack, first.job_id, first_run, point)
            await asyncio.sleep(3)
            ends.append((point, (await stack.jobs.job(first.job_id).state()).phase))
    finally:
        await stack.ark.release()
        await stack.jobs.job(first.job_id).resubmit(attempt=1)
        assert (await until_ended(stack, first.job_id)).phase == "stored"
    assert await _tasks(stack, request) == 2
    assert not [end for end in ends if end[1] == "failed"], f"attempt 2 runs, and is paid: {ends}"
    report(TITLE, {"job": "resubmitted", "what an operator does": "Resets of run 1", "tasks": 2, "end": "stored"})


async def _creating(stack: Stack, request: VideoRequest) -> str:
    await stack.ark.fault("create", "slow", contains=request.prompt, seconds=4)
    job_id = (await stack.jobs.submit(request)).id
    await until_posted(stack, request)
    return job_id


async def _running(stack: Stack, request: VideoRequest) -> str:
    await stack.ark.fault("task", "stay_running", contains=request.prompt)
    job_id = (await stack.jobs.submit(request)).id
    await until(stack, job_id, lambda job: job.phase == "running")
    return job_id


async def _storing(stack: Stack, request: VideoRequest) -> str:
    job_id = await _running(stack, request)
    (entry,) = await creates_of(stack, request)
    await stack.ark.fault("download", "drip", task_id=entry.task_id, seconds=5)
    await stack.ark.release(entry.task_id)
    await until(stack, job_id, lambda job: job.phase == "storing")
    return job_id


async def _over(stack: Stack, request: VideoRequest) -> str:
    return (await scenarios.stored(stack, request)).job_id


async def _recovering(stack: Stack, request: VideoRequest) -> str:
    await stack.ark.configure(callbacks="off")
    await stack.ark.fault("list", "503", times=3)
    await stack.ark.fault("create", "lost_after_commit", contains=request.prompt)
    job_id = (await stack.jobs.submit(request)).id
    await until(stack, job_id, lambda job: job.phase == "recovering")
    await stack.ark.configure(callbacks="on")
    return job_id


MOMENTS = {"creating": _creating, "running": _running, "storing": _storing, "recovering": _recovering, "over": _over}


async def _terminate(stack: Stack, job_id: str) -> None:
    await stack.client.get_workflow_handle(job_id).terminate("a test")


async def _delete(stack: Stack, job_id: str) -> None:
    await delete_runs(stack, job_id, [await newest_run(stack, job_id)])


DEEDS = {"Terminate and submit": _terminate, "delete the run and submit": _delete}


# A closed run cannot be terminated; it can be deleted.
ENDINGS = [(moment, deed) for moment in MOMENTS for deed in DEEDS if (moment, deed) != ("over", "Terminate and submit")]


@pytest.mark.parametrize(("moment", "deed"), ENDINGS)
async def test_terminated_run_is_continued(served: Harness, report: AddRow, moment: str, deed: str) -> None:
    stack, request = served.stack, a_request()
    job_id = await MOMENTS[moment](stack, request)
    await DEEDS[deed](stack, job_id)
    submitted = await stack.jobs.submit(request)
    assert found(submitted).phase == "checking", "a new run"
    await stack.ark.release()
    ended = await until_ended(stack, job_id)
    assert ended.phase == "stored"
    assert len(await creates_of(stack, request)) == 1
    report(TITLE, {"job": moment, "what an operator does": deed, "tasks": 1, "end": ended.phase})


async def _waiting(stack: Stack, request: VideoRequest) -> str:
    await stack.ark.fault("create", "429", contains=request.prompt, retry_after=30.0)
    job_id = (await stack.jobs.submit(request)).id
    await until(stack, job_id, lambda job: job.phase == "waiting")
    return job_id


async def _queued(stack: Stack, request: VideoRequest) -> str:
    await stack.ark.fault("task", "stay_queued", contains=request.prompt)
    job_id = (await stack.jobs.submit(request)).id
    await until(stack, job_id, lambda job: job.phase == "queued" and job.task_id is not None)
    return job_id


async def _cancel_by_client(stack: Stack, job_id: str) -> None:
    await stack.jobs.job(job_id).cancel()


async def _cancel_by_command(stack: Stack, job_id: str) -> None:
    assert (await starter(stack, "cancel", job_id)).code == 0


async def _cancel_by_button(stack: Stack, job_id: str) -> None:
    """Cancel in the UI, which is not offered for a run that is closed."""
    with contextlib.suppress(RPCError):
        await stack.client.get_workflow_handle(job_id).cancel()


CANCELS = {"client": _cancel_by_client, "command line": _cancel_by_command, "the UI's button": _cancel_by_button}
# A task that is not created yet, or still queued, is cancelled; one that runs is billed, and stored.
SPARED = {"waiting": 0, "queued": 1}


@pytest.mark.parametrize("moment", [*MOMENTS, *SPARED])
@pytest.mark.parametrize("by", CANCELS)
async def test_cancelled_job_pays_once(served: Harness, report: AddRow, moment: str, by: str) -> None:
    stack, request = served.stack, a_request()
    job_id = await (MOMENTS | {"waiting": _waiting, "queued": _queued})[moment](stack, request)
    for _ in range(2):
        await CANCELS[by](stack, job_id)
    if moment not in SPARED:
        await stack.ark.release()
    ended = await until_ended(stack, job_id)
    (entry,) = await creates_of(stack, request)
    committed = [entry] if entry.committed else []
    assert len(committed) == SPARED.get(moment, 1)
    billed = [entry for entry in committed if entry.billed_tokens is not None]
    assert (ended.phase, len(billed)) in {("stored", 1), ("cancelled", 0)}, "a billed task is stored"
    if moment in SPARED:
        assert ended.phase == "cancelled"
    deed = f"Cancel by {by}, twice"
    report(TITLE, {"job": moment, "what an operator does": deed, "tasks": len(committed), "end": ended.phase})


# A resubmit after these pays for another attempt; repeating it changes nothing.
ENDED = {name: SCENARIOS[name][0] for name in ("refused", "failed", "cancelled while queued", "resolved as lost")}


@pytest.mark.parametrize("by", ["client", "command line"])
@pytest.mark.parametrize("name", ENDED)
async def test_repeated_resubmit_pays_once(served: Harness, report: AddRow, name: str, by: str) -> None:
    stack, request = served.stack, a_request()
    ended = await ENDED[name](stack, request)
    assert ended.error is not None
    assert ended.error.attempt == 1
    is_lost = ended.error.failure_class == "lost"
    before = len(await creates_of(stack, request))

    async def ask() -> None:
        if by == "client":
            await stack.jobs.job(ended.job_id).resubmit(attempt=1, accept_second_charge=is_lost)
        else:
            accepted = ["--accept-second-charge"] if is_lost else []
            ran = await starter(stack, "resubmit", ended.job_id, "--attempt", "1", *accepted)
            assert ran.code == 0, ran.messages

    await asyncio.gather(ask(), ask())
    again = await until_ended(stack, ended.job_id)
    await ask()
    assert again.phase == "stored"
    await reset(stack, ended.job_id)
    await ask()
    assert (await until_ended(stack, ended.job_id)).result == again.result
    assert len(await creates_of(stack, request)) == before + 1, "one further attempt, and no more"
    what = f"resubmit by {by}, four times, a Reset among them"
    report(TITLE, {"job": name, "what an operator does": what, "tasks": await _tasks(stack, request), "end": "stored"})


@pytest.mark.parametrize("moment", ["creating", "running", "over"])
async def test_second_namespace_shares_ledger(served: Harness, report: AddRow, moment: str) -> None:
    stack, request = served.stack, a_request()
    job_id = await MOMENTS[moment](stack, request)
    async with served.case("second") as other:
        other.request = request
        await other.start_worker()
        await other.submit()
        await asyncio.sleep(2)
        await stack.ark.release()
        ours, theirs = await until_ended(stack, job_id), await other.settle()
    assert ours.result is not None
    assert ours.result == theirs.result
    assert len(await creates_of(stack, request)) == 1
    report(TITLE, {"job": moment, "what an operator does": "a second namespace", "tasks": 1, "end": "stored"})


@pytest.mark.parametrize(("moment", "activity"), [("creating", "create_task"), ("storing", "store_video")])
@pytest.mark.parametrize("deed", ["pause and unpause", "reset", "reset, and the worker is killed"])
async def test_reset_activity_pays_once(served: Harness, report: AddRow, moment: str, activity: str, deed: str) -> None:
    stack, request = served.stack, a_request()
    job_id = await MOMENTS[moment](stack, request)
    service, run = stack.client.workflow_service, WorkflowExecution(workflow_id=job_id)
    namespace = stack.client.namespace
    if deed == "pause and unpause":
        await service.pause_activity(PauseActivityRequest(namespace=namespace, execution=run, type=activity))
        pending = (await stack.client.get_workflow_handle(job_id).describe()).raw_description.pending_activities
        assert any(one.paused or "PAUSE" in str(one) for one in pending), "the fault did not happen"
        await asyncio.sleep(1)
        await service.unpause_activity(
            UnpauseActivityRequest(namespace=namespace, execution=run, type=activity, reset_attempts=True)
        )
    else:
        await service.reset_activity(ResetActivityRequest(namespace=namespace, execution=run, type=activity))
    if "killed" in deed:
        await stack.children["worker"].kill()
        await stack.start_worker()
    ended = await until_ended(stack, job_id)
    assert ended.phase == "stored"
    assert len(await creates_of(stack, request)) == 1
    report(TITLE, {"job": moment, "what an operator does": f"{activity}: {deed}", "tasks": 1, "end": ended.phase})
