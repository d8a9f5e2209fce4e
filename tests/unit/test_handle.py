"""A handle whose server drops questions; ``tests/integration/test_client.py`` has the rest on a real server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.api.taskqueue.v1 import PollerInfo
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, DescribeTaskQueueResponse
from temporalio.client import WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from seedance_temporal.client import VideoJobs
from seedance_temporal.errors import TemporalUnavailable
from seedance_temporal.handle import VideoJob


class Queue:
    """A queue with one poller, of which the server does not answer the first questions."""

    def __init__(self, *failures: RPCStatusCode) -> None:
        self.failures = list(failures)

    async def describe_task_queue(self, question: DescribeTaskQueueRequest, **_: Any) -> DescribeTaskQueueResponse:
        if self.failures:
            raise RPCError("operation was canceled", self.failures.pop(0), b"")
        poller = PollerInfo()
        poller.last_access_time.FromDatetime(datetime.now(UTC))
        return DescribeTaskQueueResponse(pollers=[poller])


async def is_polled(queue: Queue) -> bool:
    client = SimpleNamespace(namespace="default", workflow_service=queue)
    job = VideoJob(cast(VideoJobs, SimpleNamespace(client=client)), "seedance-" + "0" * 64)
    return await job._has_worker(cast(WorkflowExecutionDescription, SimpleNamespace(task_queue="seedance-byteplus")))


async def test_dropped_question_is_asked_again() -> None:
    queue = Queue(RPCStatusCode.CANCELLED)
    assert await is_polled(queue)
    assert queue.failures == []


@pytest.mark.parametrize("failures", [[RPCStatusCode.CANCELLED] * 2, [RPCStatusCode.UNAVAILABLE]])
async def test_unanswered_question_is_an_error(failures: list[RPCStatusCode]) -> None:
    with pytest.raises(TemporalUnavailable):
        await is_polled(Queue(*failures))


class _Slow:
    """A run whose queries are never answered."""

    async def signal(self, *_: Any, **__: Any) -> None: ...

    async def query(self, *_: Any, **__: Any) -> None:
        await asyncio.sleep(60)


class _SlowJob(VideoJob):
    async def _describe(self) -> Any:
        return SimpleNamespace(status=WorkflowExecutionStatus.RUNNING, run_id="r")

    async def _has_worker(self, run: Any) -> bool:
        return True

    def _handle(self, run_id: str | None = None) -> Any:
        return _Slow()


@pytest.mark.parametrize("call", ["cancel", "resolve"])
async def test_cancelled_call_is_cancelled(call: str) -> None:
    job = _SlowJob(cast(VideoJobs, SimpleNamespace(query_timeout=None)), f"seedance-{0:064x}")
    waits = asyncio.create_task(job.cancel() if call == "cancel" else job.resolve(attempt=1, action="lost"))
    await asyncio.sleep(0.05)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
