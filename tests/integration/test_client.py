"""The client against a real Temporal, with a stand-in for the workflow."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from temporalio.client import Client, Interceptor, OutboundInterceptor, QueryWorkflowInput, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy

from seedance_temporal import connection, errors
from seedance_temporal.client import VideoJobs
from seedance_temporal.connection import connect
from seedance_temporal.contract import SEEDANCE_USER, WORKFLOW, GenerateVideoInput, Queues, Resubmit, late_tasks_id
from seedance_temporal.errors import JobFailed
from seedance_temporal.handle import VideoJob
from seedance_temporal.identity import job_id_of
from seedance_temporal.job import JobError, JobState, Phase, phase_of
from seedance_temporal.provider.model_rows import ModelRow
from seedance_temporal.provider.task import FailureClass
from seedance_temporal.request import VideoRequest
from tests.support.encryption import a_key_setting
from tests.support.jobs import detail_of, found, present, some_settings
from tests.support.polling import until
from tests.support.servers import dev_server
from tests.support.temporal_stub import (
    ERRORS,
    MODELS,
    RESULT,
    TASK_ID,
    address,
    handle,
    request,
    run_of,
    worker,
)

UNKNOWN = "seedance-" + "0" * 64
# Nobody serves this route but the tests that start a worker of their own.
LONELY = "volcengine"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def jobs(temporal: Client) -> VideoJobs:
    return VideoJobs(temporal)


async def _ended(client: Client, of: VideoRequest, how: str) -> None:
    """Bring the job of a request into a state that Temporal knows."""
    jobs, run = VideoJobs(client), handle(client, of)
    if how == "timed_out":
        await client.start_workflow(
            WORKFLOW,
            GenerateVideoInput(request=of),
            id=job_id_of(of),
            task_queue=Queues(of.route).workflows,
            run_timeout=timedelta(seconds=1),
        )
    else:
        await jobs.submit(of)
    if how == "terminated":
        await run.terminate()
    elif how == "cancelled_by_temporal":
        await run.cancel()
    elif how not in ("running", "timed_out"):
        await run.signal("end", how)
    if how != "running":
        await until(lambda: _is_closed(run))


async def _is_closed(run: Any) -> bool:
    return (await run.describe()).status is not WorkflowExecutionStatus.RUNNING


# Submitting


async def test_submit_starts_one_run(jobs: VideoJobs, temporal: Client) -> None:
    of = request("new")
    submitted = await jobs.submit(of, may_create=False)
    assert (submitted.id, submitted.existing, submitted.started) == (job_id_of(of), False, True)
    assert found(submitted).phase == "checking"
    description = await handle(temporal, of).describe()
    assert description.task_queue == "seedance-byteplus"
    assert await description.static_summary() == "Seedance 2.0 720p 16:9 5 s for new"
    assert await handle(temporal, of).query("given", result_type=GenerateVideoInput) == GenerateVideoInput(
        request=of, may_create=False
    )
    raw = description.raw_description.execution_config
    assert raw.workflow_execution_timeout.ToSeconds() == raw.workflow_run_timeout.ToSeconds() == 0


async def test_invalid_request_is_refused_without_temporal() -> None:
    nobody = VideoJobs(cast(Client, None))
    with pytest.raises(errors.InvalidRequest) as refused:
        await nobody.submit(request("", "x"))
    assert [problem.at for problem in refused.value.problems] == ["user_id"]


async def test_insecure_hosts_are_for_references(temporal: Client) -> None:
    url = "http://127.0.0.1:9/p.png"
    of = VideoRequest.model_validate(
        request("local").model_dump(exclude_none=True) | {"references": [{"role": "first_frame", "url": url}]}
    )
    with pytest.raises(errors.InvalidRequest):
        await VideoJobs(temporal).submit(of)
    assert not (await VideoJobs(temporal, settings=some_settings()).submit(of)).existing


async def test_settings_come_from_the_environment(temporal: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    of = request("endpoint").model_copy(update={"model": "ep-25", "duration": 20})
    with pytest.raises(errors.InvalidRequest, match="duration"):
        await VideoJobs(temporal).submit(of)
    monkeypatch.setenv("SEEDANCE_ENDPOINTS", '{"ep-25": "dreamina-seedance-2-5-260628"}')
    monkeypatch.setenv("SEEDANCE_HASH_USERS", "true")
    jobs = VideoJobs(temporal)
    assert jobs.rules.behind("ep-25") == "dreamina-seedance-2-5-260628"
    await jobs.submit(of)
    summary = present(await (await handle(temporal, of).describe()).static_summary())
    assert summary.startswith("Seedance 2.5 720p 16:9 20 s for ")
    assert "endpoint" not in summary
    monkeypatch.setenv("SEEDANCE_ENDPOINTS", "{")
    with pytest.raises(errors.InvalidSettings, match="SEEDANCE_ENDPOINTS"):
        VideoJobs(temporal)


@pytest.mark.parametrize("how", ["running", "stored", "failed", "refused"])
async def test_same_request_again_is_the_same_job(jobs: VideoJobs, temporal: Client, how: str) -> None:
    of = request(f"again {how}")
    await _ended(temporal, of, how)
    if how == "running":
        await until(lambda: _is_running(jobs, job_id_of(of)))
    before = await run_of(temporal, of)
    again = await jobs.submit(of)
    assert (again.existing, again.started) == (True, False)
    assert await run_of(temporal, of) == before
    assert found(again).phase == how
    assert found(again).result == (RESULT if how == "stored" else None)
    assert found(again).error == ERRORS.get(how)


@pytest.mark.parametrize("how", ["unclaimed", "unsettled", "terminated", "cancelled_by_temporal", "timed_out"])
async def test_unsettled_end_is_followed_by_new_run(jobs: VideoJobs, temporal: Client, how: str) -> None:
    of = request(f"anew {how}")
    await _ended(temporal, of, how)
    before = await run_of(temporal, of)
    again = await jobs.submit(of)
    assert (again.existing, again.started) == (True, True)
    assert (found(again).phase, found(again).error) == ("checking", None)
    assert await run_of(temporal, of) != before
    assert (await handle(temporal, of).describe()).status is WorkflowExecutionStatus.RUNNING


@pytest.mark.parametrize(
    ("how", "starts"), [("failed", True), ("refused", True), ("stored", False), ("running", False)]
)
async def test_resubmit_follows_only_a_failure(jobs: VideoJobs, temporal: Client, how: str, starts: bool) -> None:
    of = request(f"resubmit {how}")
    await _ended(temporal, of, how)
    before = await run_of(temporal, of)
    grant = Resubmit(attempt=1, accept_second_charge=True)
    assert (await jobs.submit(of, resubmit=grant)).existing
    assert (await run_of(temporal, of) != before) is starts
    given = await handle(temporal, of).query("given", result_type=GenerateVideoInput)
    assert given.resubmit == (grant if starts else None)


@pytest.mark.parametrize("before", ["unknown", "terminated"])
async def test_simultaneous_submissions_start_one_run(jobs: VideoJobs, temporal: Client, before: str) -> None:
    of = request(f"crowd {before}")
    if before != "unknown":
        await _ended(temporal, of, before)
    answers = await asyncio.gather(*(jobs.submit(of) for _ in range(20)))
    assert [answer.existing for answer in answers].count(False) == (1 if before == "unknown" else 0)
    expected = 1 if before == "unknown" else 2
    query = f"WorkflowId = '{job_id_of(of)}'"
    await until(lambda: _counts(temporal, query, expected))
    await asyncio.sleep(0.3)
    assert (await temporal.count_workflows(query)).count == expected


async def _counts(client: Client, query: str, expected: int) -> bool:
    return (await client.count_workflows(query)).count >= expected


async def test_job_of_ended_model_is_started(temporal: Client) -> None:
    """The bucket can hold its video, of which Temporal knows nothing any more; its worker refuses to pay."""
    of = request("of an ended model", "stored")
    jobs = VideoJobs(temporal, settings=some_settings(seedance_models={of.model: ModelRow(ends=date(2026, 1, 1))}))
    assert jobs.rules.end_of_model(of) is not None
    assert not (await jobs.submit(of)).existing


async def test_job_stored_meanwhile_is_not_run_again(temporal: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    of = request("overtaken")
    await _ended(temporal, of, "unclaimed")
    late = VideoJobs(temporal)
    unclaimed = await late.job(job_id_of(of)).state()
    await _ended(temporal, of, "stored")
    states = [unclaimed, await late.job(job_id_of(of)).state()]

    async def state(_: VideoJob, *, detail: bool) -> JobState:
        assert not detail
        return states.pop(0)

    monkeypatch.setattr(VideoJob, "state", state)
    before = await run_of(temporal, of)
    assert found(await late.submit(of)).result == RESULT
    assert await run_of(temporal, of) == before


async def test_submitting_waits_for_no_worker(jobs: VideoJobs) -> None:
    of = request("lonely", route=LONELY)
    started = time.monotonic()
    assert not (await jobs.submit(of)).existing
    assert (await jobs.submit(of)).existing
    assert time.monotonic() - started < 2


# Reading


async def test_get_asks_the_worker(jobs: VideoJobs) -> None:
    of = request("asked")
    job_id = (await jobs.submit(of)).id
    seen = await jobs.job(job_id).state()
    assert seen.detail is not None
    assert (seen.phase, seen.task_id, seen.attempt, detail_of(seen).request) == ("running", TASK_ID, 1, of)


async def test_missing_worker_leaves_what_temporal_knows(temporal: Client) -> None:
    of = request("deserted", "attention:account", route=LONELY)
    quick = VideoJobs(temporal, query_seconds=0.3)
    job_id = (await quick.submit(of)).id
    async with worker(temporal, LONELY):
        await until(lambda: _is_running(quick, job_id))
    started = time.monotonic()
    seen = await quick.job(job_id).state()
    assert time.monotonic() - started < 3
    assert seen.detail is None
    assert (seen.job_id, seen.request_hash, seen.phase) == (job_id, job_id[9:], "running")
    assert (seen.attention, seen.task_id, seen.attempt) == ("account", TASK_ID, None)
    assert (seen.result, seen.error, seen.ended) == (None, None, False)
    assert (seen.user, seen.model, seen.closed_at) == ("deserted", of.model, None)
    with pytest.raises(errors.WorkerUnavailable, match="seedance-volcengine"):
        await quick.job(job_id).resolve(attempt=1, action="lost")


async def _is_running(jobs: VideoJobs, job_id: str) -> bool:
    return (await jobs.job(job_id).state()).phase == "running"


async def test_ended_jobs_are_known_without_a_worker(temporal: Client) -> None:
    quick = VideoJobs(temporal, query_seconds=0.3)
    async with worker(temporal, LONELY):
        for prompt in ("stored", "failed"):
            job_id = (await quick.submit(request("over", prompt, LONELY))).id
            await until(partial(_is_closed, temporal.get_workflow_handle(job_id)))
    stored = await quick.job(job_id_of(request("over", "stored", LONELY))).state()
    assert (stored.phase, stored.result, stored.task_id) == ("stored", RESULT, TASK_ID)
    failed = await quick.job(job_id_of(request("over", "failed", LONELY))).state()
    assert (failed.phase, failed.error, failed.task_id, failed.attempt) == ("failed", ERRORS["failed"], TASK_ID, 1)


async def test_terminated_job_says_what_to_do(jobs: VideoJobs, temporal: Client) -> None:
    of = request("killed")
    await _ended(temporal, of, "terminated")
    seen = await jobs.job(job_id_of(of)).state()
    assert seen.phase == "checking"
    assert seen.error is not None
    assert (seen.error.code, seen.error.failure_class) == ("run_terminated", "unsettled")
    assert "without paying twice" in seen.error.message


async def test_unknown_job_and_no_job_id(jobs: VideoJobs) -> None:
    unknown = jobs.job(UNKNOWN)
    for ask in (unknown.state, unknown.result, unknown.cancel, partial(unknown.resubmit, attempt=1)):
        with pytest.raises(errors.UnknownJob):
            await ask()
    for text in ("seedance-1", "", "0" * 63, "seedance-" + "g" * 64):
        with pytest.raises(errors.InvalidJobId, match="not a job id"):
            jobs.job(text)
    with pytest.raises(errors.UnknownJob):
        await anext(unknown.follow())
    with pytest.raises(errors.UnknownJob):
        await jobs.job(UNKNOWN).resolve(attempt=1, action="lost")


# Following


async def test_result_waits_for_the_end(jobs: VideoJobs, temporal: Client) -> None:
    of = request("awaited")
    job_id = (await jobs.submit(of)).id
    waiting = asyncio.create_task(jobs.job(job_id).result())
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await handle(temporal, of).signal("end", "stored")
    assert await asyncio.wait_for(waiting, 5) == RESULT


async def test_result_of_a_failure_raises_it(jobs: VideoJobs) -> None:
    job_id = (await jobs.submit(request("broken", "refused"))).id
    with pytest.raises(errors.JobFailed, match="Refused") as failed:
        await jobs.job(job_id).result()
    assert (failed.value.state.error, failed.value.state.phase) == (ERRORS["refused"], "refused")
    assert isinstance(failed.value, errors.RequestRefused)
    assert (failed.value.code, failed.value.message) == ("InvalidParameter", "Refused.")
    assert (failed.value.task_id, failed.value.attempt, failed.value.resubmit_could_help) == (None, 1, False)


async def test_result_timeout_leaves_the_job_running(jobs: VideoJobs, temporal: Client) -> None:
    of = request("patience")
    job = await jobs.submit(of)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        await job.result(timeout=0.3)
    assert time.monotonic() - started < 2
    assert (await job.state()).phase == "running"
    await handle(temporal, of).signal("end", "stored")
    assert await job.result(timeout=10) == RESULT


FAILURES = {
    "failed": errors.ProviderFailed,
    "refused": errors.RequestRefused,
    "unclaimed": errors.RequestRefused,
    "unsettled": errors.JobUnsettled,
    "cancelled": errors.JobCancelled,
    "terminated": errors.JobUnsettled,
}


@pytest.mark.parametrize("how", FAILURES)
async def test_failure_has_the_class_of_its_outcome(jobs: VideoJobs, temporal: Client, how: str) -> None:
    of = request(f"class {how}")
    await _ended(temporal, of, how)
    with pytest.raises(errors.JobFailed) as failed:
        await jobs.job(job_id_of(of)).result()
    assert type(failed.value) is FAILURES[how]
    assert failed.value.code == present(failed.value.state.error).code


@pytest.mark.parametrize(("failure_class", "kind"), [("expired", errors.JobExpired), ("lost", errors.VideoLost)])
def test_failure_is_made_of_a_state(failure_class: FailureClass, kind: type[errors.JobFailed]) -> None:
    error = JobError(
        code="x", message="It ended.", failure_class=failure_class, task_id="cgt-1", attempt=2, resubmit_could_help=True
    )
    state = JobState(
        job_id=UNKNOWN, request_hash="0" * 64, phase="lost", route="byteplus", started_at=datetime.now(UTC), error=error
    )
    failed = errors.JobFailed.of(state)
    assert type(failed) is kind
    assert (str(failed), failed.code, failed.task_id, failed.attempt) == ("It ended.", "x", "cgt-1", 2)
    assert failed.resubmit_could_help


@asynccontextmanager
async def followed(job: VideoJob, every: float) -> AsyncIterator[list[JobState]]:
    """The states that a follower has seen so far. The block must end the job."""
    seen: list[JobState] = []

    async def follow() -> None:
        async for state in job.follow(every=every):
            seen.append(state)  # noqa: PERF401 - it is read while it grows

    following = asyncio.create_task(follow())
    yield seen
    await asyncio.wait_for(following, 5)
    assert all(a != b for a, b in pairwise(seen))


class _Queries(Interceptor):
    """Counts queries, as Temporal Cloud does for its bill."""

    def __init__(self) -> None:
        self.count = 0

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 - the library's name
        queries = self

        class Counting(OutboundInterceptor):
            async def query_workflow(self, input: QueryWorkflowInput) -> Any:
                queries.count += 1
                return await super().query_workflow(input)

        return Counting(next)


def counting(temporal: Client) -> tuple[VideoJobs, _Queries]:
    queries = _Queries()
    config = temporal.config()
    config["interceptors"] = [queries]
    return VideoJobs(Client(**config)), queries


async def test_follow_queries_only_after_a_change(temporal: Client) -> None:
    of, (jobs, queries) = request("quiet"), counting(temporal)
    job = await jobs.submit(of)
    assert queries.count == 0, "submitting asks no worker"
    async with followed(job, every=0.05) as seen:
        await until(lambda: bool(seen) and seen[-1].phase == "running")
        await asyncio.sleep(0.5)
        before = queries.count
        await asyncio.sleep(1)
        assert queries.count == before
        await handle(temporal, of).signal("task_changed", {"task_id": "x", "status": "running", "attempt": 1})
        await until(lambda: detail_of(seen[-1]).timeline[0].count == 2)
        assert before < queries.count <= before + 4
        await handle(temporal, of).signal("end", "stored")
    assert (seen[-1].result, detail_of(seen[-1]).request) == (RESULT, of)


async def test_result_queries_nothing(temporal: Client) -> None:
    jobs, queries = counting(temporal)
    job = await jobs.submit(request("silent", "stored"))
    assert await job.result(timeout=10) == RESULT
    assert (await job.state(detail=False)).detail is None
    assert queries.count == 0


async def test_follow_survives_restarts_of_the_worker(temporal: Client) -> None:
    of = request("followed", route=LONELY)
    job = await VideoJobs(temporal, query_seconds=0.3).submit(of)
    async with followed(job, every=0.1) as seen:
        async with worker(temporal, LONELY):
            await until(lambda: bool(seen) and seen[-1].detail is not None)
        await handle(temporal, of).signal("task_changed", {"task_id": "x", "status": "running", "attempt": 1})
        await until(lambda: seen[-1].detail is None)
        async with worker(temporal, LONELY):
            await until(lambda: seen[-1].detail is not None and detail_of(seen[-1]).timeline[0].count == 2)
            await asyncio.sleep(0.5)  # nothing changes, so nothing is yielded
            await handle(temporal, of).signal("end", "stored")
            await until(lambda: seen[-1].result is not None, seconds=5)
    assert seen[-1].result == RESULT


async def test_result_follows_the_next_run(jobs: VideoJobs, temporal: Client) -> None:
    of = request("restarted")
    job_id = (await jobs.submit(of)).id
    waiting = asyncio.create_task(jobs.job(job_id).result())
    await asyncio.sleep(0.2)
    # What a Reset does: the run is ended, and another takes its place at the same moment.
    await temporal.start_workflow(
        WORKFLOW,
        GenerateVideoInput(request=of),
        id=job_id,
        task_queue=Queues("byteplus").workflows,
        id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING,
    )
    await asyncio.sleep(0.2)
    await handle(temporal, of).signal("end", "stored")
    assert await asyncio.wait_for(waiting, 5) == RESULT


# Cancelling and settling


async def test_cancel_is_answered_by_the_workflow(jobs: VideoJobs) -> None:
    job_id = (await jobs.submit(request("cancelled"))).id
    assert (await jobs.job(job_id).cancel()).outcome == "cancelled"
    with pytest.raises(errors.JobFailed):
        await jobs.job(job_id).result()
    assert (await jobs.job(job_id).state()).phase == "cancelled"
    assert (await jobs.job(job_id).cancel()).outcome == "already_closed"
    assert not await jobs.job(job_id).retry()


async def test_requests_wait_for_missing_worker(temporal: Client) -> None:
    of = request("unheard", route=LONELY)
    quick = VideoJobs(temporal, query_seconds=0.3)
    job_id = (await quick.submit(of)).id
    with pytest.raises(errors.WorkerUnavailable):
        await quick.job(job_id).resolve(attempt=1, action="lost")
    assert (await quick.job(job_id).cancel()).outcome == "requested"
    async with worker(temporal, LONELY):
        with pytest.raises(errors.JobFailed):
            await quick.job(job_id).result()
        assert await handle(temporal, of).query("resolutions") == ["lost"]


async def test_resolve_returns_the_workflows_answer(jobs: VideoJobs, temporal: Client) -> None:
    of = request("resolved")
    job_id = (await jobs.submit(of)).id
    adopted = await jobs.job(job_id).resolve(attempt=1, action="adopt", task_id="cgt-1")
    assert (adopted.accepted, adopted.message) == (True, "adopt cgt-1")
    assert not (await jobs.job(job_id).resolve(attempt=2, action="lost")).accepted
    await handle(temporal, of).signal("end", "stored")
    await jobs.job(job_id).result()
    closed = await jobs.job(job_id).resolve(attempt=1, action="lost")
    assert not closed.accepted
    assert closed.message == "The run has ended (stored). Look for the attempt in its audit."
    await _ended(temporal, request("settle anew"), "terminated")
    ended = await jobs.job(job_id_of(request("settle anew"))).resolve(attempt=1, action="lost")
    assert not ended.accepted
    assert "Submit the same request again" in ended.message


@pytest.mark.parametrize("end", ["stored", "failed"])
async def test_task_named_after_the_end_is_asked_for(jobs: VideoJobs, temporal: Client, end: str) -> None:
    """An operator can find the task of an attempt that was given up, while its video can still be fetched."""
    of = request(f"named after {end}", end)
    job = await jobs.submit(of)
    with suppress(JobFailed):
        await job.result(20)
    assert not (await job.resolve(attempt=3, action="adopt", task_id="")).accepted
    answer = await job.resolve(attempt=3, action="adopt", task_id="cgt-1")
    assert answer.accepted
    assert "The provider is asked for task cgt-1" in answer.message
    late = temporal.get_workflow_handle(late_tasks_id(job.id, 3))
    history = await late.fetch_history()
    (signal,) = [event for event in history.events if event.HasField("workflow_execution_signaled_event_attributes")]
    assert b'"source":"operator"' in signal.workflow_execution_signaled_event_attributes.input.payloads[0].data
    await late.terminate()


# Listing


async def test_list_filters_and_quotes(jobs: VideoJobs, temporal: Client) -> None:
    users = ["o'brien' OR WorkflowType = 'GenerateVideo", "plain lister"]
    ids = {user: (await jobs.submit(request(user, "attention:task_gone"))).id for user in users}
    for user in users:
        (job,) = await until(partial(jobs.list, user=user))
        assert (job.job_id, job.phase, job.attention, job.task_id) == (ids[user], "running", "task_gone", TASK_ID)
    assert await jobs.list(user="plain lister", phase="stored") == []
    both = await jobs.list(phase="running", attention="task_gone")
    assert {job.job_id for job in both} == set(ids.values())
    assert len(await jobs.list(limit=1)) == 1


async def test_list_filters_by_model_route_and_time(jobs: VideoJobs, temporal: Client) -> None:
    before = datetime.now(UTC)
    of, ended = request("lister of all", "hold"), request("lister of all", "stored")
    lonely = request("lister of all", route=LONELY)
    ids = [(await jobs.submit(each)).id for each in (of, ended, lonely)]
    await jobs.job(ids[1]).result()

    async def found(**wanted: Any) -> set[str]:
        return {job.job_id for job in await jobs.list(job_ids=ids, **wanted)}

    await until(lambda: _all_seen(found, ids))
    assert await found(is_open=True) == {ids[0], ids[2]}
    assert await found(route=LONELY) == {ids[2]}, "known of a job that no worker has begun with"
    assert {job.route for job in await jobs.list(job_ids=ids[2:])} == {LONELY}
    assert await found(model=of.model) == {ids[0], ids[1]}
    assert await found(since=before) == set(ids)
    assert await found(until=before) == set()
    assert await found(since=before, until=before + timedelta(minutes=5), model=of.model, is_open=True) == {ids[0]}
    many = [f"seedance-{number:064x}" for number in range(120)]
    assert {job.job_id for job in await jobs.list(job_ids=[*many, *ids])} == set(ids)
    assert await jobs.list(job_ids=[]) == []
    with pytest.raises(ValueError, match="time zone"):
        await jobs.list(since=datetime(2026, 11, 22))  # noqa: DTZ001 - this is what is refused
    newest_first = [job.started_at for job in await jobs.list(job_ids=ids)]
    assert newest_first == sorted(newest_first, reverse=True)


async def _all_seen(found: Callable[..., Awaitable[set[str]]], ids: list[str]) -> bool:
    """The visibility store lags: it knows all of them, and that one has ended."""
    counts = [len(await found(**wanted)) for wanted in ({"is_open": True}, {"model": MODELS["byteplus"]})]
    return await found() == set(ids) and counts == [2, 2]


async def test_find_takes_id_hash_and_unique_prefix(jobs: VideoJobs, temporal: Client) -> None:
    of = request("found")
    job_id = (await jobs.submit(of)).id
    for text in (job_id, job_id[9:]):
        assert jobs.job(text).id == (await jobs.find(text)).id == job_id
    assert (await jobs.find(UNKNOWN)).id == UNKNOWN, "a whole id is not searched"
    await until(lambda: jobs.list(user="found"))
    for text in (job_id[: 9 + 6], job_id[9 : 9 + 6], job_id[9:72]):
        job = await jobs.find(text)
        assert (job.id, job.existing, job.submitted) == (job_id, None, None)
        assert (await job.state()).phase == "running"
    for text in (job_id[9:14], "found", "seedance-", f"{job_id}0", "'" * 6, ""):
        with pytest.raises(errors.InvalidJobId, match="at least 6 hex digits"):
            await jobs.find(text)
    with pytest.raises(errors.UnknownJob, match="seedance-000000…"):
        await jobs.find("000000")


async def test_find_names_jobs_of_an_ambiguous_prefix(jobs: VideoJobs, temporal: Client) -> None:
    ids = [f"seedance-abcdef{number:058x}" for number in range(2)]
    for job_id in ids:
        given = GenerateVideoInput(request=request("twin"))
        await temporal.start_workflow(WORKFLOW, given, id=job_id, task_queue=Queues("nowhere").workflows)

    async def both() -> bool:
        return len(await jobs.list(job_ids=ids)) == 2

    await until(both)
    with pytest.raises(errors.AmbiguousJobId) as ambiguous:
        await jobs.find("abcdef0")
    assert ambiguous.value.job_ids == tuple(ids)
    assert all(job_id in str(ambiguous.value) for job_id in ids)


async def test_list_without_search_attributes() -> None:
    async with dev_server(attributes=()) as client, worker(client):
        jobs = VideoJobs(client)
        job_id = (await jobs.submit(request("bare", "no-attributes"))).id
        assert [job.job_id for job in await until(jobs.list)] == [job_id]
        with pytest.raises(errors.SeedanceError, match=rf"lacks search attributes.*{SEEDANCE_USER.name}"):
            await jobs.list(user="bare")


# Connecting


async def test_connect_reads_the_environment(temporal: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", address(temporal))
    assert (await connect()).namespace == "default"
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "elsewhere")
    client = await connect()
    assert client.namespace == "elsewhere"
    # A namespace that is not there is no reason to say that a job is not there.
    with pytest.raises(errors.TemporalUnavailable, match="elsewhere"):
        await VideoJobs(client).job(UNKNOWN).state()


async def test_video_jobs_connect(temporal: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = await VideoJobs.connect(target_host=address(temporal))
    assert not (await jobs.submit(request("connected"))).existing
    monkeypatch.setenv("TEMPORAL_ADDRESS", address(temporal))
    assert (await (await VideoJobs.connect()).submit(request("connected"))).existing


async def test_unreachable_server_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    with pytest.raises(errors.TemporalUnavailable, match=r"cannot be reached at 127\.0\.0\.1:1"):
        await connect()
    monkeypatch.setenv("TEMPORAL_ADDRESS", "no address")
    with pytest.raises(errors.InvalidSettings, match="no address"):
        await connect()


async def test_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.3)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(errors.TemporalUnavailable, match=r"no answer in 0\.3 s"),
    ):
        await connect(target_host=f"127.0.0.1:{silent.getsockname()[1]}")


async def test_broken_configuration_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "temporal.toml"
    file.write_text('[profile.default]\napi_key = "s3cret" x\n')
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(file))
    with pytest.raises(errors.InvalidSettings, match=r"Temporal's configuration: .*line 2") as refused:
        await connect()
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        "TEMPORAL_CONFIG_FILE",
        "TEMPORAL_TLS_CLIENT_CERT_PATH",
        "TEMPORAL_TLS_CLIENT_KEY_PATH",
        "TEMPORAL_TLS_SERVER_CA_CERT_PATH",
    ],
)
async def test_named_file_must_exist(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Without it, a job would be submitted to the local server."""
    monkeypatch.setenv(name, "/nowhere/file")
    with pytest.raises(errors.InvalidSettings, match=f"{name} names /nowhere/file, which is no file"):
        await connect()


async def test_file_that_a_configuration_names_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "temporal.toml"
    file.write_text('[profile.default.tls]\nclient_cert_path = "/nowhere/cert"\nclient_key_path = "/nowhere/key"\n')
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(file))
    with pytest.raises(errors.InvalidSettings, match="/nowhere/cert"):
        await connect()


async def test_temporals_variables_lose_white_space(temporal: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"{address(temporal)}\n")
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "default\n")
    assert (await connect()).namespace == "default"


@pytest.mark.parametrize(
    ("failure_class", "task_id", "attempt", "phase"),
    [
        ("moderation", None, 1, "refused"),
        ("invalid", None, 1, "refused"),
        ("invalid", None, None, "failed"),
        ("moderation", "cgt-1", 1, "failed"),
        ("provider", "cgt-1", 1, "failed"),
        ("expired", "cgt-1", 1, "expired"),
        ("cancelled", None, None, "cancelled"),
        ("lost", "cgt-1", 1, "lost"),
        ("unsettled", None, 1, "checking"),
    ],
)
def test_phase_of_an_error(failure_class: FailureClass, task_id: str | None, attempt: int | None, phase: Phase) -> None:
    error = JobError(code="x", message="x", failure_class=failure_class, task_id=task_id, attempt=attempt)
    assert phase_of(error) == phase


def test_client_that_does_not_encrypt_is_refused(temporal: Client) -> None:
    settings = some_settings(seedance_encryption_keys=a_key_setting("k1"))
    with pytest.raises(errors.InvalidSettings, match="the client does not encrypt: use connect"):
        VideoJobs(temporal, settings=settings)


async def test_connection_encrypts_by_environment(temporal: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDANCE_ENCRYPTION_KEYS", a_key_setting("k1"))
    jobs = await VideoJobs.connect(target_host=address(temporal))
    job = await jobs.submit(request("connected with a key"))
    history = await temporal.get_workflow_handle(job.id).fetch_history()
    (payload,) = history.events[0].workflow_execution_started_event_attributes.input.payloads
    assert payload.metadata["encoding"] == b"binary/encrypted"
    monkeypatch.delenv("SEEDANCE_ENCRYPTION_KEYS")
    with pytest.raises(errors.EncryptionKeyMissing, match="'k1'"):
        await (await VideoJobs.connect(target_host=address(temporal))).job(job.id).resubmit(attempt=1)
    monkeypatch.setenv("SEEDANCE_ENCRYPTION_KEYS", "k1:c2hvcnQ=")
    with pytest.raises(errors.InvalidSettings, match="SEEDANCE_ENCRYPTION_KEYS: its entry 1 has 5 bytes"):
        await connect(target_host=address(temporal))
