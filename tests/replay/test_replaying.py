"""Replay passes on recorded histories, and fails where the workflow would do something else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from temporalio import workflow
from temporalio.client import Client
from temporalio.workflow import NondeterminismError

from seedance_temporal.contract import WORKFLOW, GenerateVideoInput
from seedance_temporal.data_converter import data_converter
from seedance_temporal.encryption_keys import parse_keys
from seedance_temporal.job import VideoResult
from tests.replay.histories import Recorded
from tests.replay.replaying import histories_of, replay, replay_histories
from tests.support.encryption import a_key_setting
from tests.support.polling import until
from tests.support.servers import dev_server
from tests.workflows.fakes import RESULT, claim, created
from tests.workflows.harness import Harness, Job


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[Client]:
    async with dev_server() as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def jobs(server: Client) -> AsyncIterator[tuple[Job, Job]]:
    """A job that has ended, and one that still waits."""
    harness = Harness(server)
    await harness.start_workers()
    harness.fake.plan("read_ledger", claim(), claim())
    harness.fake.plan("create_task", created(), created())
    harness.fake.finish()
    over = await harness.start()
    await over.until_state(phase="queued")
    await over.callback("succeeded")
    await over.result()
    waits = await harness.start(take=2)
    await waits.until_state(phase="queued")
    await harness.close()
    yield over, waits


async def test_history_can_be_replayed(jobs: tuple[Job, Job]) -> None:
    over, waits = jobs
    assert await replay(over) == 1
    assert await replay(waits) == 1


async def test_unstarted_run_is_skipped(server: Client) -> None:
    assert await replay(await Harness(server).start()) == 1


async def test_namespace_jobs_are_replayed(server: Client, jobs: tuple[Job, Job]) -> None:
    async def all_of_them() -> bool:
        return await replay_histories(await histories_of(server)) >= len(jobs)

    await until(all_of_them, "visibility shows all jobs")


async def test_changed_history_is_noticed(jobs: tuple[Job, Job]) -> None:
    history = await jobs[0].fetch_history()
    scheduled = [e.activity_task_scheduled_event_attributes for e in history.events]
    event = next(attributes for attributes in scheduled if attributes.activity_type.name == "create_task")
    event.activity_type.name = "store_video"
    with pytest.raises(NondeterminismError):
        await replay_histories([history])


async def test_other_answer_is_noticed(jobs: tuple[Job, Job]) -> None:
    """Recorded answers of activities decide the next step."""
    history = await jobs[0].fetch_history()
    for event in history.events:
        if event.HasField("activity_task_completed_event_attributes"):
            (payload,) = event.activity_task_completed_event_attributes.result.payloads
            payload.data = payload.data.replace(b'{"kind":"created"', b'{"kind":"unknown"')
    with pytest.raises(NondeterminismError):
        await replay_histories([history])


@workflow.defn(name=WORKFLOW)
class CreatesAtOnce:
    """A workflow that sends without a claim."""

    @workflow.run
    async def run(self, job: GenerateVideoInput) -> VideoResult:
        await workflow.sleep(1)
        return RESULT


async def test_other_workflow_is_noticed(jobs: tuple[Job, Job]) -> None:
    for job in jobs:
        with pytest.raises(NondeterminismError):
            await replay_histories([await job.fetch_history()], CreatesAtOnce)


async def test_old_histories_are_followed_with_encryption(records: list[Recorded]) -> None:
    """A worker with keys takes over runs whose payloads are in the clear."""
    keys = parse_keys(a_key_setting("k1"))
    histories = [run for recorded in records[::40] for run in recorded.runs]
    assert await replay_histories(histories, converter=data_converter(keys)) == len(histories) > 10
