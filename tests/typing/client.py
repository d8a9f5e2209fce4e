"""The types that an editor and mypy see of the client. Checked by mypy, with all other files; never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import assert_type

from seedance_temporal import (
    CancelAnswer,
    CancelOutcome,
    Estimate,
    Event,
    FailureClass,
    InvalidRequest,
    JobDetail,
    JobError,
    JobFailed,
    JobState,
    Problem,
    RequestRefused,
    ResolveAnswer,
    Rules,
    SyncVideoJob,
    SyncVideoJobs,
    Usage,
    VideoJob,
    VideoJobs,
    VideoRequest,
    VideoResult,
)


async def awaited(request: VideoRequest) -> None:
    jobs = await VideoJobs.connect(target_host="localhost:7233")
    assert_type(jobs, VideoJobs)
    assert_type(jobs.rules, Rules)
    job = await jobs.submit(request)
    assert_type(job, VideoJob)
    assert_type(jobs.job("…"), VideoJob)
    assert_type(await jobs.find("…"), VideoJob)
    assert_type(await jobs.list(user="user-42", is_open=True), list[JobState])
    assert_type(jobs.runs(route="byteplus"), AsyncIterator[JobState])
    assert_type(job.id, str)
    assert_type(job.existing, bool | None)
    assert_type(job.started, bool | None)
    assert_type(job.submitted, JobState | None)
    assert_type(await job.result(timeout=900), VideoResult)
    assert_type(await job.state(), JobState)
    assert_type(job.follow(), AsyncIterator[JobState])
    assert_type(await job.cancel(), CancelAnswer)
    assert_type(await job.resubmit(attempt=1, accept_second_charge=True), VideoJob)
    assert_type(await job.retry(), bool)
    assert_type(await job.resolve(attempt=1, action="adopt", task_id="cgt-1"), ResolveAnswer)


def plain(request: VideoRequest) -> None:
    with SyncVideoJobs.connect() as jobs:
        assert_type(jobs, SyncVideoJobs)
        job = jobs.submit(request)
        assert_type(job, SyncVideoJob)
        assert_type(jobs.find("…"), SyncVideoJob)
        assert_type(jobs.list(limit=None), list[JobState])
        assert_type(job.result(), VideoResult)
        assert_type(job.state(), JobState)
        assert_type(job.follow(), Iterator[JobState])
        assert_type(job.cancel(), CancelAnswer)
        assert_type(job.resubmit(attempt=1), SyncVideoJob)


def shapes(state: JobState, failed: JobFailed, answer: CancelAnswer) -> None:
    # Of a newer worker, they can be other words.
    assert_type(state.phase, str)
    assert_type(state.attention, str | None)
    assert_type(state.result, VideoResult | None)
    assert_type(state.error, JobError | None)
    assert_type(state.detail, JobDetail | None)
    assert_type(answer.outcome, CancelOutcome)
    if state.detail is not None:
        assert_type(state.detail.timeline, tuple[Event, ...])
    if state.error is not None:
        assert_type(state.error.failure_class, FailureClass)
    if state.result is not None:
        assert_type(state.result.usage, Usage | None)
    assert_type(failed.state, JobState)
    assert_type((failed.code, failed.message), tuple[str, str])
    assert_type((failed.task_id, failed.attempt), tuple[str | None, int | None])
    assert_type(failed.resubmit_could_help, bool)
    assert_type(JobFailed.of(state), JobFailed)


def requests(body: bytes, fields: Mapping[str, object], rules: Rules) -> None:
    try:
        assert_type(VideoRequest.from_json(body), VideoRequest)
        assert_type(VideoRequest.from_dict(fields, rules=rules), VideoRequest)
    except InvalidRequest as refused:
        assert_type(refused.problems, tuple[Problem, ...])
    request = VideoRequest(user_id="u", route="byteplus", model="ep-1", prompt="x", ratio="16:9", resolution="any text")
    assert_type(rules.check(request), list[Problem])
    assert_type(rules.warnings(request), list[str])
    assert_type(rules.estimate(request), Estimate)


def subclasses(refused: RequestRefused) -> JobFailed:
    return refused
