"""The client against a real Temporal, with a stand-in for the workflow."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy

from seedance_temporal import connection
from seedance_temporal.client import VideoJobs
from seedance_temporal.connection import connect
from seedance_temporal.contract import SEEDANCE_USER, WORKFLOW, GenerateVideoInput, Queues, Resolve, Resubmit
from seedance_temporal.errors import (
    InvalidRequest,
    InvalidSettings,
    JobFailed,
    SeedanceError,
    TemporalUnavailable,
    UnknownJob,
    WorkerUnavailable,
)
from seedance_temporal.identity import job_id_of
from seedance_temporal.job import Job, JobError, JobState, JobSummary, Phase, phase_of
from seedance_temporal.provider.task import FailureClass
from seedance_temporal.request import VideoRequest
from tests.support.temporal_stub import (
    ERRORS,
    MODELS,
    RESULT,
    TASK_ID,
    address,
    dev_server,
    eventually,
    handle,
    request,
    run_of,
    worker,
)

UNKNOWN = "seedance-" + "0" * 64
# Nobody serves this route but the tests that start a worker of their own.
LONELY = "volcengine"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def temporal() -> AsyncIterator[Client]:
    async with dev_server() as client, worker(client):
        yield client


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
        await eventually(lambda: _is_closed(run))


async def _is_closed(run: Any) -> bool:
    return (await run.describe()).status is not WorkflowExecutionStatus.RUNNING


# Submitting


async def test_new_job_is_started_once_for_its_request(jobs: VideoJobs, temporal: Client) -> None:
    of = request("new")
    submitted = await jobs.submit(of, may_create=False)
    assert (submitted.job_id, submitted.existing, submitted.phase) == (job_id_of(of), False, "checking")
    description = await handle(temporal, of).describe()
    assert description.task_queue == "seedance-byteplus"
    assert await description.static_summary() == "Seedance 2.0 720p 16:9 5 s for new"
    assert await handle(temporal, of).query("given", result_type=GenerateVideoInput) == GenerateVideoInput(
        request=of, may_create=False
    )
    raw = description.raw_description.execution_config
    assert raw.workflow_execution_timeout.ToSeconds() == raw.workflow_run_timeout.ToSeconds() == 0


async def test_invalid_request_is_refused_before_temporal_is_asked() -> None:
    nobody = VideoJobs(cast(Client, None))
    with pytest.raises(InvalidRequest) as refused:
        await nobody.submit(request("", "x"))
    assert [problem.at for problem in refused.value.problems] == ["user_id"]


async def test_insecure_hosts_are_for_references(temporal: Client) -> None:
    url = "http://127.0.0.1:9/p.png"
    of = VideoRequest.model_validate(
        request("local").model_dump(exclude_none=True) | {"references": [{"role": "first_frame", "url": url}]}
    )
    with pytest.raises(InvalidRequest):
        await VideoJobs(temporal).submit(of)
    assert not (await VideoJobs(temporal, insecure_hosts={"127.0.0.1"}).submit(of)).existing


@pytest.mark.parametrize("how", ["running", "stored", "failed", "refused"])
async def test_same_request_again_is_the_same_job(jobs: VideoJobs, temporal: Client, how: str) -> None:
    of = request(f"again {how}")
    await _ended(temporal, of, how)
    before = await run_of(temporal, of)
    again = await jobs.submit(of)
    assert again.existing
    assert await run_of(temporal, of) == before
    expected = {"running": "running", "stored": "stored", "failed": "failed", "refused": "refused"}
    assert again.phase == expected[how]
    assert again.result == (RESULT if how == "stored" else None)
    assert again.error == ERRORS.get(how)


@pytest.mark.parametrize("how", ["unclaimed", "unsettled", "terminated", "cancelled_by_temporal", "timed_out"])
async def test_unsettled_or_unclaimed_end_is_followed_by_a_new_run(jobs: VideoJobs, temporal: Client, how: str) -> None:
    of = request(f"anew {how}")
    await _ended(temporal, of, how)
    before = await run_of(temporal, of)
    again = await jobs.submit(of)
    assert (again.existing, again.phase, again.error) == (True, "checking", None)
    assert await run_of(temporal, of) != before
    assert (await handle(temporal, of).describe()).status is WorkflowExecutionStatus.RUNNING


@pytest.mark.parametrize(
    ("how", "starts"), [("failed", True), ("refused", True), ("stored", False), ("running", False)]
)
async def test_resubmit_follows_only_a_failure(jobs: VideoJobs, temporal: Client, how: str, starts: bool) -> None:
    of = request(f"resubmit {how}")
    await _ended(temporal, of, how)
    before = await run_of(temporal, of)
    wish = Resubmit(attempt=1, accept_second_charge=True)
    assert (await jobs.submit(of, resubmit=wish)).existing
    assert (await run_of(temporal, of) != before) is starts
    given = await handle(temporal, of).query("given", result_type=GenerateVideoInput)
    assert given.resubmit == (wish if starts else None)


@pytest.mark.parametrize("before", ["unknown", "terminated"])
async def test_simultaneous_submissions_start_one_run(jobs: VideoJobs, temporal: Client, before: str) -> None:
    of = request(f"crowd {before}")
    if before != "unknown":
        await _ended(temporal, of, before)
    answers = await asyncio.gather(*(jobs.submit(of) for _ in range(20)))
    assert [answer.existing for answer in answers].count(False) == (1 if before == "unknown" else 0)
    expected = 1 if before == "unknown" else 2
    query = f"WorkflowId = '{job_id_of(of)}'"
    await eventually(lambda: _counts(temporal, query, expected))
    await asyncio.sleep(0.3)
    assert (await temporal.count_workflows(query)).count == expected


async def _counts(client: Client, query: str, expected: int) -> bool:
    return (await client.count_workflows(query)).count >= expected


async def test_job_that_was_stored_since_the_look_is_not_run_again(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = request("overtaken")
    await _ended(temporal, of, "unclaimed")
    late = VideoJobs(temporal)
    unclaimed = await late.get(job_id_of(of))
    await _ended(temporal, of, "stored")
    looks = [unclaimed, await late.get(job_id_of(of))]

    async def get(_: str) -> Job:
        return looks.pop(0)

    monkeypatch.setattr(late, "get", get)
    before = await run_of(temporal, of)
    assert (await late.submit(of)).result == RESULT
    assert await run_of(temporal, of) == before


async def test_submitting_waits_for_no_worker(jobs: VideoJobs) -> None:
    of = request("lonely", route=LONELY)
    started = time.monotonic()
    assert not (await jobs.submit(of)).existing
    assert (await jobs.submit(of)).existing
    assert time.monotonic() - started < 2


# Looking


async def test_get_asks_the_worker(jobs: VideoJobs) -> None:
    of = request("asked")
    job_id = (await jobs.submit(of)).job_id
    seen = await jobs.get(job_id)
    assert isinstance(seen, JobState)
    assert (seen.phase, seen.task_id, seen.attempt, seen.request) == ("running", TASK_ID, 1, of)


async def test_get_without_a_worker_says_what_temporal_knows(temporal: Client) -> None:
    of = request("deserted", "attention:account", route=LONELY)
    quick = VideoJobs(temporal, query_seconds=0.3)
    job_id = (await quick.submit(of)).job_id
    async with worker(temporal, LONELY):
        await eventually(lambda: _is_running(quick, job_id))
    started = time.monotonic()
    seen = await quick.get(job_id)
    assert time.monotonic() - started < 3
    known = Job(job_id=job_id, request_hash=job_id[9:], phase="running", attention="account", task_id=TASK_ID)
    assert type(seen) is JobSummary
    assert seen.model_dump(include={*Job.model_fields}) == known.model_dump()
    assert (seen.user, seen.model, seen.closed_at) == ("deserted", of.model, None)
    with pytest.raises(WorkerUnavailable, match="seedance-volcengine"):
        await quick.state(job_id)


async def _is_running(jobs: VideoJobs, job_id: str) -> bool:
    return (await jobs.get(job_id)).phase == "running"


async def test_ended_jobs_are_known_without_a_worker(temporal: Client) -> None:
    quick = VideoJobs(temporal, query_seconds=0.3)
    async with worker(temporal, LONELY):
        for prompt in ("stored", "failed"):
            job_id = (await quick.submit(request("over", prompt, LONELY))).job_id
            await eventually(partial(_is_closed, temporal.get_workflow_handle(job_id)))
    stored = await quick.get(job_id_of(request("over", "stored", LONELY)))
    assert (stored.phase, stored.result, stored.task_id) == ("stored", RESULT, TASK_ID)
    failed = await quick.get(job_id_of(request("over", "failed", LONELY)))
    assert (failed.phase, failed.error, failed.task_id, failed.attempt) == ("failed", ERRORS["failed"], TASK_ID, 1)


async def test_terminated_job_says_what_to_do(jobs: VideoJobs, temporal: Client) -> None:
    of = request("killed")
    await _ended(temporal, of, "terminated")
    seen = await jobs.get(job_id_of(of))
    assert seen.phase == "checking"
    assert seen.error is not None
    assert (seen.error.code, seen.error.failure_class) == ("run_terminated", "unsettled")
    assert "without paying twice" in seen.error.message


async def test_has_worker(jobs: VideoJobs, temporal: Client) -> None:
    assert await eventually(lambda: jobs.has_worker("byteplus"))
    assert not await jobs.has_worker("nowhere")


async def test_unknown_job_and_no_job_id(jobs: VideoJobs) -> None:
    for ask in (jobs.get, jobs.state, jobs.result, jobs.cancel):
        with pytest.raises(UnknownJob):
            await ask(UNKNOWN)
        with pytest.raises(ValueError, match="not a job id"):
            await ask("seedance-1")
    with pytest.raises(UnknownJob):
        await jobs.resolve(UNKNOWN, Resolve(attempt=1, action="lost"))


# Following


async def test_result_waits_for_the_end(jobs: VideoJobs, temporal: Client) -> None:
    of = request("awaited")
    job_id = (await jobs.submit(of)).job_id
    waiting = asyncio.create_task(jobs.result(job_id))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await handle(temporal, of).signal("end", "stored")
    assert await asyncio.wait_for(waiting, 5) == RESULT


async def test_result_of_a_failure_raises_it(jobs: VideoJobs) -> None:
    job_id = (await jobs.submit(request("broken", "refused"))).job_id
    with pytest.raises(JobFailed, match="Refused") as failed:
        await jobs.result(job_id)
    assert (failed.value.error, failed.value.job.phase) == (ERRORS["refused"], "refused")


async def test_follow_tells_changes_until_the_end_across_restarts_of_the_worker(temporal: Client) -> None:
    of = request("followed", route=LONELY)
    quick = VideoJobs(temporal, query_seconds=0.3)
    job_id = (await quick.submit(of)).job_id
    seen: list[Job] = []

    async def follow() -> None:
        async for job in quick.follow(job_id, every=0.1):
            seen.append(job)  # noqa: PERF401 - looked at while it grows

    following = asyncio.create_task(follow())
    async with worker(temporal, LONELY):
        await eventually(lambda: _true(bool(seen) and isinstance(seen[-1], JobState)))
    await eventually(lambda: _true(type(seen[-1]) is JobSummary))
    async with worker(temporal, LONELY):
        await handle(temporal, of).signal("task_changed", {"task_id": "x", "status": "running", "attempt": 1})
        await eventually(lambda: _true(isinstance(seen[-1], JobState) and seen[-1].timeline[0].count == 2))
        await asyncio.sleep(0.5)  # nothing changes, so nothing is told
        await handle(temporal, of).signal("end", "stored")
        await asyncio.wait_for(following, 5)
    assert seen[-1].result == RESULT
    assert all(a != b for a, b in pairwise(seen))


async def _true(value: bool) -> bool:
    return value


async def test_follow_goes_over_to_the_run_that_follows(jobs: VideoJobs, temporal: Client) -> None:
    of = request("restarted")
    job_id = (await jobs.submit(of)).job_id
    waiting = asyncio.create_task(jobs.result(job_id))
    await asyncio.sleep(0.2)
    # What a Reset does: the run is ended, and another stands in its place at the same moment.
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


async def test_cancel_is_answered_by_the_workflow_then_closed(jobs: VideoJobs) -> None:
    job_id = (await jobs.submit(request("cancelled"))).job_id
    assert (await jobs.cancel(job_id)).outcome == "cancelled"
    with pytest.raises(JobFailed):
        await jobs.result(job_id)
    assert (await jobs.get(job_id)).phase == "cancelled"
    assert (await jobs.cancel(job_id)).outcome == "already_closed"


async def test_cancel_without_a_worker_leaves_the_wish_with_temporal(temporal: Client) -> None:
    of = request("unheard", route=LONELY)
    quick = VideoJobs(temporal, query_seconds=0.3)
    job_id = (await quick.submit(of)).job_id
    assert (await quick.cancel(job_id)).outcome == "requested"
    history = await handle(temporal, of).fetch_history()
    assert any(event.HasField("workflow_execution_cancel_requested_event_attributes") for event in history.events)


async def test_resolve_takes_the_answer_of_the_workflow(jobs: VideoJobs, temporal: Client) -> None:
    of = request("resolved")
    job_id = (await jobs.submit(of)).job_id
    taken = await jobs.resolve(job_id, Resolve(attempt=1, action="adopt", task_id="cgt-1"))
    assert (taken.accepted, taken.message) == (True, "adopt cgt-1")
    assert not (await jobs.resolve(job_id, Resolve(attempt=2, action="lost"))).accepted
    await handle(temporal, of).signal("end", "stored")
    await jobs.result(job_id)
    closed = await jobs.resolve(job_id, Resolve(attempt=1, action="lost"))
    assert not closed.accepted
    assert closed.message == "The run has ended (stored). Nothing is left to settle."
    await _ended(temporal, request("settle anew"), "terminated")
    ended = await jobs.resolve(job_id_of(request("settle anew")), Resolve(attempt=1, action="lost"))
    assert not ended.accepted
    assert "Submit the same request again" in ended.message


async def test_resolve_without_a_worker_says_so(temporal: Client) -> None:
    quick = VideoJobs(temporal, query_seconds=0.3)
    job_id = (await quick.submit(request("unresolved", route=LONELY))).job_id
    with pytest.raises(WorkerUnavailable):
        await quick.resolve(job_id, Resolve(attempt=1, action="lost"))


# Listing


async def test_list_filters_and_quotes(jobs: VideoJobs, temporal: Client) -> None:
    users = ["o'brien' OR WorkflowType = 'GenerateVideo", "plain lister"]
    ids = {user: (await jobs.submit(request(user, "attention:task_gone"))).job_id for user in users}
    for user in users:
        found = await eventually(partial(jobs.list, user=user))
        assert [job.job_id for job in found] == [ids[user]]
        assert (found[0].phase, found[0].attention, found[0].task_id) == ("running", "task_gone", TASK_ID)
    assert await jobs.list(user="plain lister", phase="stored") == []
    both = await jobs.list(phase="running", attention="task_gone")
    assert {job.job_id for job in both} == set(ids.values())
    assert len(await jobs.list(limit=1)) == 1


async def test_list_filters_by_model_route_time_and_what_is_open(jobs: VideoJobs, temporal: Client) -> None:
    before = datetime.now(UTC)
    of, ended = request("lister of all", "hold"), request("lister of all", "stored")
    lonely = request("lister of all", route=LONELY)
    ids = [(await jobs.submit(each)).job_id for each in (of, ended, lonely)]
    await jobs.result(ids[1])

    async def found(**wanted: Any) -> set[str]:
        return {job.job_id for job in await jobs.list(job_ids=ids, **wanted)}

    await eventually(lambda: _all_seen(found, ids))
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
    return (
        await found() == set(ids)
        and len(await found(is_open=True)) == 2
        and len(await found(model=MODELS["byteplus"])) == 2
    )


async def test_list_without_search_attributes() -> None:
    async with dev_server(attributes=False) as client, worker(client):
        jobs = VideoJobs(client)
        job_id = (await jobs.submit(request("bare", "no-attributes"))).job_id
        assert [job.job_id for job in await eventually(jobs.list)] == [job_id]
        with pytest.raises(SeedanceError, match=rf"lacks search attributes.*{SEEDANCE_USER.name}"):
            await jobs.list(user="bare")


# Connecting


async def test_connect_reads_the_environment(temporal: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", address(temporal))
    assert (await connect()).namespace == "default"
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "elsewhere")
    client = await connect()
    assert client.namespace == "elsewhere"
    # A namespace that is not there is no reason to say that a job is not there.
    with pytest.raises(TemporalUnavailable, match="elsewhere"):
        await VideoJobs(client).get(UNKNOWN)


async def test_unreachable_server_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    with pytest.raises(TemporalUnavailable, match=r"cannot be reached at 127\.0\.0\.1:1"):
        await connect()


async def test_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.3)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(TemporalUnavailable, match=r"no answer in 0\.3 s"),
    ):
        await connect(target_host=f"127.0.0.1:{silent.getsockname()[1]}")


async def test_impossible_address_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "no address")
    with pytest.raises(InvalidSettings, match="no address"):
        await connect()


async def test_broken_configuration_is_told_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "temporal.toml"
    file.write_text("[profile.default\n")
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(file))
    with pytest.raises(InvalidSettings, match="Temporal's configuration"):
        await connect()


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
