"""Jobs in every stage, and the loss of Temporal's database."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from dev.stack import API_KEYS, Stack, start_temporal, temporal_client
from seedance_temporal import VideoRequest
from seedance_temporal.identity import ObjectNames, hash_of_job, job_id_of, key_fingerprint
from seedance_temporal.ledger.facts import Claim
from seedance_temporal.ledger.store import Ledger
from tests.e2e import scenarios
from tests.e2e.requests import creates_of, until, until_committed, until_created, until_posted
from tests.support import polling

Stage = Callable[[Stack, VideoRequest], Awaitable[object]]
# A fault that outlives the worker.
_LONG = 600.0


async def not_sent(stack: Stack, request: VideoRequest) -> None:
    """The provider has no room for it for the next ten minutes."""
    await stack.ark.fault("create", "429", contains=request.prompt, retry_after=_LONG)
    await stack.jobs.submit(request)
    await _until_object(stack, request, "outcome")


async def claimed(stack: Stack, request: VideoRequest) -> None:
    """A worker died between its claim and its POST: this claim is all that it left."""
    claim = Claim(
        job_id=job_id_of(request),
        attempt=1,
        nonce=f"{abs(hash(request.prompt)):032x}",
        namespace="default",
        run_id="",
        claimed_at=datetime.now(UTC),
        request=request,
        key=key_fingerprint(API_KEYS["byteplus"]),
    )
    assert await Ledger(stack.bucket, "seedance").claim(claim)


async def in_flight(stack: Stack, request: VideoRequest) -> None:
    """The provider makes the task, and has not answered yet."""
    await stack.ark.fault("create", "hang_after_commit", contains=request.prompt, seconds=_LONG)
    await stack.jobs.submit(request)
    await until_committed(stack, request)


async def in_flight_in_vain(stack: Stack, request: VideoRequest) -> None:
    """The provider has the request, and never makes a task."""
    await stack.ark.fault("create", "hang_before_commit", contains=request.prompt, seconds=_LONG)
    await stack.jobs.submit(request)
    await until_posted(stack, request)


async def unknown(stack: Stack, request: VideoRequest) -> None:
    """The answer was lost; the list shows no identifiers until Temporal is lost as well."""
    await stack.ark.fault("create", "lost_after_commit", contains=request.prompt)
    job = await stack.jobs.submit(request)
    await until(stack, job.id, lambda state: state.phase == "recovering")


async def queued(stack: Stack, request: VideoRequest) -> None:
    await stack.ark.fault("task", "stay_queued", contains=request.prompt)
    await until_created(stack, (await stack.jobs.submit(request)).id)


async def running(stack: Stack, request: VideoRequest) -> None:
    await stack.ark.fault("task", "stay_running", contains=request.prompt)
    task_id = (await until_created(stack, (await stack.jobs.submit(request)).id)).task_id

    async def runs() -> bool:
        return any(task["id"] == task_id and task["status"] == "running" for task in await stack.ark.tasks())

    await polling.until(runs, "the provider runs the task", seconds=60)


async def not_copied(stack: Stack, request: VideoRequest) -> None:
    """The task has succeeded, and its host refuses the download."""
    await _downloads(stack, request, "refuse")


async def copying(stack: Stack, request: VideoRequest) -> None:
    """The download has begun, and does not end."""
    await _downloads(stack, request, "hang")


async def _downloads(stack: Stack, request: VideoRequest, fault: str) -> None:
    await stack.ark.fault("task", "stay_running", contains=request.prompt)
    state = await until_created(stack, (await stack.jobs.submit(request)).id)
    armed = await stack.ark.fault("download", fault, task_id=state.task_id, times=None, seconds=_LONG)
    await stack.ark.release(state.task_id)

    async def fired() -> bool:
        return bool(await stack.ark.fired(armed))

    await polling.until(fired, "the download fails", seconds=60)


async def _until_object(stack: Stack, request: VideoRequest, kind: str) -> None:
    name = ObjectNames("seedance", hash_of_job(job_id_of(request))).attempt(1, kind)

    async def exists() -> bool:
        return bool(await stack.bucket.list(name))

    await polling.until(exists, f"{name} is written", seconds=60)


async def never_claimed(stack: Stack, request: VideoRequest) -> None:
    """Submitted while no worker is there: Temporal alone knows of it."""
    await stack.jobs.submit(request)


# With what becomes of it.
ENDED: dict[str, tuple[Stage, str]] = {
    "stored": (scenarios.stored, "stored"),
    "failed": (scenarios.failed, "failed"),
    "cancelled": (scenarios.cancelled, "cancelled"),
    "refused": (scenarios.refused, "refused"),
}
OPEN: dict[str, tuple[Stage, str]] = {
    "queued": (queued, "stored"),
    "running": (running, "stored"),
    "not copied": (not_copied, "stored"),
    "copying": (copying, "stored"),
    "unknown": (unknown, "stored"),
    "in flight": (in_flight, "stored"),
    "in flight in vain": (in_flight_in_vain, "without a task"),
    "claimed": (claimed, "without a task"),
    "not sent": (not_sent, "without a task"),
}
WITHOUT_WORKER: dict[str, tuple[Stage, str]] = {"never claimed": (never_claimed, "forgotten")}


async def lose_temporal(stack: Stack) -> None:
    """Kill the server as a crash would, delete its database, and start it again on the same ports."""
    await stack.children["temporal"].kill()
    databases = list(stack.folder.glob("temporal.db*"))
    assert databases, "the fault did not happen"
    for database in databases:
        database.unlink()
    server = stack.children["temporal"] = await start_temporal(stack.ports, stack.folder)
    stack.client = await temporal_client(server, stack.ports)
    assert (await stack.client.count_workflows()).count == 0, "the fault did not happen"


async def task_of_record(stack: Stack, request: VideoRequest) -> str | None:
    """Return the task whose video is stored for a request."""
    content = await stack.bucket.read(ObjectNames("seedance", hash_of_job(job_id_of(request))).record)
    return json.loads(content)["task_id"] if content is not None else None


async def require_paid_stored(stack: Stack, request: VideoRequest) -> None:
    """Assert that each task that was billed for a request is stored."""
    billed = [entry.task_id for entry in await creates_of(stack, request) if entry.billed_tokens is not None]
    stored = await task_of_record(stack, request)
    assert billed in ([], [stored]), f"paid: {billed}, stored: {stored}"
