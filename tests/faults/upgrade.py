"""An upgrade: jobs that the code of an earlier commit brings to each phase, for the present code to finish."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle

from dev.stack import ROOT, Stack
from seedance_temporal import JobState, VideoRequest
from seedance_temporal.contract import LATE_TASKS, SIGNAL_TASK_CHANGED, LateTasksInput, Queues, TaskChanged
from seedance_temporal.contract import late_tasks_id as id_of_late_tasks
from seedance_temporal.identity import job_id_of
from seedance_temporal.request import Reference
from tests.e2e.requests import a_request, until, until_committed
from tests.support.media_files import picture
from tests.support.polling import until as until_true
from tests.support.result_host import Answer, ResultHost

# The commit whose jobs the present code must finish: the last release, or, before there is one, the last change of the
# workflow's commands that needed no gate. Move it on with each of these; CONTRIBUTING.md says when.
BEFORE = "f3bef2d8a8cd6bd6eaf98e1cf0ce7e75823a6c0d"

# Callbacks would end waits, and a lost create is an operator's after 20 seconds.
SETTINGS = {
    "SEEDANCE_CALLBACK_URL": "",
    "SEEDANCE_POLL_FIRST_SECONDS": "1",
    "SEEDANCE_POLL_MAX_SECONDS": "2",
    "SEEDANCE_CREATE_TIMEOUT_SECONDS": "5",
    "SEEDANCE_RECOVERY_SECONDS": "20",
}
_PICTURE = "/picture.png"


def code_of(commit: str, folder: Path) -> Path:
    """Write the files of a commit into a folder, and return it.

    Raises:
        LookupError: They cannot be had; it says why.
    """
    git = shutil.which("git")
    if git is None:
        raise LookupError("git is not installed")
    archive = subprocess.run([git, "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode != 0:
        said = archive.stderr.decode().strip()
        raise LookupError(f"this clone has no commit {commit}; git fetch --unshallow gets all: {said}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


@dataclass(frozen=True)
class Stage:
    """A stack whose worker is exchanged.

    Attributes:
        host: The host of the reference media.
    """

    stack: Stack
    host: ResultHost

    async def submit(self, request: VideoRequest) -> str:
        return (await self.stack.jobs.submit(request)).id

    async def until(self, job_id: str, **expected: object) -> JobState:
        """Return the state of a job, as soon as it is as expected."""
        return await until(
            self.stack, job_id, lambda job: all(getattr(job, name) == value for name, value in expected.items())
        )

    async def until_retried(self, workflow_id: str, activity: str) -> None:
        """Wait until a try of an activity has failed."""
        handle = self.stack.client.get_workflow_handle(workflow_id)
        await until_true(lambda: _has_failed(handle, activity), f"{activity} of {workflow_id} fails", seconds=90)

    async def retry(self, request: VideoRequest) -> None:
        await self.stack.jobs.job(job_id_of(request)).retry()


async def _has_failed(handle: WorkflowHandle[object, object], activity: str) -> bool:
    pending = (await handle.describe()).raw_description.pending_activities
    if any(one.activity_type.name == activity and one.attempt > 1 for one in pending):
        return True
    failed = EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED
    return any([event.event_type == failed async for event in handle.fetch_history_events()])


Phase = Callable[[Stage], AbstractAsyncContextManager[VideoRequest]]
"""Bring a job to a phase; yield its request; after the upgrade, remove what keeps the job from going on."""


@asynccontextmanager
async def checking_references(stage: Stage) -> AsyncIterator[VideoRequest]:
    stage.host.answers[_PICTURE] = [Answer(status=503)]
    request = a_request(references=(Reference(role="reference_image", url=stage.host.url(_PICTURE)),))
    job_id = await stage.submit(request)
    await stage.until_retried(job_id, "check_references")
    yield request
    stage.host.answers[_PICTURE] = [Answer(picture())]


@asynccontextmanager
async def waiting_for_account(stage: Stage) -> AsyncIterator[VideoRequest]:
    request = a_request()
    await stage.stack.ark.fault("create", "403", contains=request.prompt)
    await stage.until(await stage.submit(request), attention="account", phase="waiting")
    yield request
    await stage.retry(request)


@asynccontextmanager
async def creating(stage: Stage) -> AsyncIterator[VideoRequest]:
    """The create is under way when the worker is told to stop."""
    request = a_request()
    await stage.stack.ark.fault("create", "slow", contains=request.prompt, seconds=3)
    await stage.submit(request)
    await until_committed(stage.stack, request)
    yield request


@asynccontextmanager
async def recovering(stage: Stage) -> AsyncIterator[VideoRequest]:
    request = a_request()
    await stage.stack.ark.fault("create", "lost_after_commit", contains=request.prompt)
    await stage.until(await stage.submit(request), phase="recovering")
    yield request


@asynccontextmanager
async def waiting_for_operator(stage: Stage) -> AsyncIterator[VideoRequest]:
    request = a_request()
    await stage.stack.ark.fault("create", "lost_after_commit", contains=request.prompt)
    job_id = await stage.submit(request)
    await stage.until(job_id, phase="recovering", attention="unknown_create")
    yield request
    job, task_id = stage.stack.jobs.job(job_id), await until_committed(stage.stack, request)
    assert (await job.state()).attention in {"unknown_create", None}
    await job.resolve(attempt=1, action="adopt", task_id=task_id)


async def _held(stage: Stage, fault: str, phase: str) -> tuple[VideoRequest, JobState]:
    """Return a job whose task stays as it is."""
    request = a_request()
    await stage.stack.ark.fault("task", fault, contains=request.prompt)
    return request, await stage.until(await stage.submit(request), phase=phase)


@asynccontextmanager
async def queued(stage: Stage) -> AsyncIterator[VideoRequest]:
    request, job = await _held(stage, "stay_queued", "queued")
    yield request
    await stage.stack.ark.release(job.task_id)


@asynccontextmanager
async def running(stage: Stage) -> AsyncIterator[VideoRequest]:
    request, job = await _held(stage, "stay_running", "running")
    yield request
    await stage.stack.ark.release(job.task_id)


@asynccontextmanager
async def storing(stage: Stage) -> AsyncIterator[VideoRequest]:
    request, job = await _held(stage, "stay_running", "running")
    await stage.stack.ark.fault("download", "503", task_id=job.task_id, times=None)
    await stage.stack.ark.release(job.task_id)
    await stage.until(job.job_id, phase="storing")
    await stage.until_retried(job.job_id, "store_video")
    yield request
    await stage.retry(request)


@asynccontextmanager
async def late_task(stage: Stage) -> AsyncIterator[VideoRequest]:
    """An operator gave the attempt up; then a callback names its task, which GET does not show yet."""
    request, stack = a_request(), stage.stack
    await stack.ark.fault("create", "lost_after_commit", contains=request.prompt)
    job_id = await stage.submit(request)
    await stage.until(job_id, phase="recovering")
    task_id = await until_committed(stack, request)
    assert (await stack.jobs.job(job_id).resolve(attempt=1, action="lost")).accepted
    await until_true(lambda: _has_ended(stage, job_id), "the job has ended")
    await stack.ark.fault("get", "503", task_id=task_id, times=None)
    late = await stack.client.start_workflow(
        LATE_TASKS,
        LateTasksInput(job_id=job_id, attempt=1, route=request.route),
        id=id_of_late_tasks(job_id, 1),
        task_queue=Queues(request.route).workflows,
        start_signal=SIGNAL_TASK_CHANGED,
        start_signal_args=[TaskChanged(task_id=task_id, status="succeeded", attempt=1)],
    )
    await stage.until_retried(late.id, "identify_task")
    yield request
    await until_true(lambda: _is_stored(stage, job_id), "a run that follows the task stores its video", seconds=150)


async def _has_ended(stage: Stage, job_id: str) -> bool:
    return (await stage.stack.jobs.job(job_id).state()).ended


async def _is_stored(stage: Stage, job_id: str) -> bool:
    return (await stage.stack.jobs.job(job_id).state()).phase == "stored"


PHASES: dict[str, Phase] = {
    "checking references": checking_references,
    "waiting for the account": waiting_for_account,
    "creating": creating,
    "recovering": recovering,
    "waiting for an operator": waiting_for_operator,
    "queued": queued,
    "running": running,
    "storing": storing,
    "a late task": late_task,
}
