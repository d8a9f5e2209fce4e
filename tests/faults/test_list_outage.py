"""LIST is down for a day, while hundreds of jobs search for the task of a lost answer."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory

from seedance_temporal import contract
from seedance_temporal.contract import TaskChanged
from seedance_temporal.job import JobState
from tests.faults.outages import HOUR, MOST_BYTES, MOST_EVENTS, SLACK
from tests.faults.report import AddRow
from tests.faults.simulated import Life, SimulatedBucket, SimulatedProvider, SimulatedTask, Trouble, simulated_now
from tests.faults.stage import Stage, a_stage, end_of
from tests.replay.replaying import replay, replay_histories, runs_of
from tests.support.jobs import a_request, detail_of
from tests.support.stores import PNG, VIDEO

# Of so many jobs one gets a callback, so long after LIST began to fail.
CALLED_BACK = 10
CALLS_AFTER = timedelta(hours=3)
# A LIST is repeated once a minute, and begins anew every ten.
MOST_LISTS_AN_HOUR = 100


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("temporalio.activity", "activities", "httpx"):
        caplog.set_level(logging.CRITICAL, name)


class _Sample:
    """Every tenth job, whose callback comes in the middle of the outage."""

    def __init__(self, stage: Stage, trouble: Trouble) -> None:
        self._stage = stage
        self._trouble = trouble
        self._posts = 0
        self._sent = False
        self.tasks: dict[str, str] = {}

    async def note(self, task: SimulatedTask | None) -> None:
        self._posts += 1
        if task is not None and self._posts % CALLED_BACK == 0:
            self.tasks[activity.info().workflow_id or ""] = task.id

    async def call_back(self) -> None:
        began = self._trouble.began_at
        if began is None or self._sent or simulated_now() < began + CALLS_AFTER:
            return
        self._sent = True
        for job_id, task_id in self.tasks.items():
            named = TaskChanged(task_id=task_id, status="succeeded", attempt=1)
            await self._stage.client.get_workflow_handle(job_id).signal(contract.SIGNAL_TASK_CHANGED, named)


@pytest.mark.parametrize(
    ("jobs", "hours"), [(20, 4), pytest.param(500, 23, marks=[pytest.mark.faults, pytest.mark.timeout(9000)])]
)
async def test_day_without_list_is_outlasted(jobs: int, hours: int, report: AddRow) -> None:
    """It lasts 23 hours, because the URLs of the results live for 24; the usual run sees the first of them."""
    trouble = Trouble("provider", "502 html", only="LIST", lasts=timedelta(hours=hours))
    life = Life(trouble)
    provider = SimulatedProvider(VIDEO, PNG, life, answering="unknown, exists", always=True)
    bucket = SimulatedBucket(life)
    began, memory = time.monotonic(), _memory()
    async with a_stage() as stage:
        sample = _Sample(stage, trouble)
        life.before_each, provider.after_post = sample.call_back, sample.note
        async with stage.workers(bucket, provider):
            handles = [await stage.start(a_request()) for _ in range(jobs)]
            errors = [await end_of(handle) for handle in handles]
            await stage.lister_ends()
            states = [await stage.state(handle.id) for handle in handles]
            histories = {handle.id: await runs_of(handle) for handle in handles}
            lister = await stage.lister_runs()
            for handle in handles[:20]:
                await replay(handle)
            await replay_histories([WorkflowHistory(stage.lister.id, run) for run in lister])
    assert errors == [None] * jobs
    assert len(provider.posts) == len(provider.tasks) == jobs, "one POST for each"
    assert len(sample.tasks) == jobs // CALLED_BACK
    for state in states:
        _check(state, trouble, called_back=state.job_id in sample.tasks)
    runs = [run for each in histories.values() for run in each]
    for run in [*runs, *lister]:
        assert len(run) < MOST_EVENTS
        assert _size(run) < MOST_BYTES
    assert len(trouble.failed) < MOST_LISTS_AN_HOUR * hours
    report(
        "A day without LIST",
        {
            "jobs": jobs,
            "failed LISTs": len(trouble.failed),
            "all LISTs": life.requests["provider"].count("LIST: list_page"),
            "signals to the lister": sum(_signals(run) for run in lister),
            "lister: runs, most events and bytes": f"{len(lister)}, {_most(lister)}",
            "job: most runs, events and bytes": f"{max(map(len, histories.values()))}, {_most(runs)}",
            "signals to a job, at most": max(map(_signals, runs)),
            "seconds": f"{time.monotonic() - began:.0f}",
            "MB of memory": f"{memory:.0f} to {_memory():.0f}",
        },
    )


def _check(state: JobState, trouble: Trouble, *, called_back: bool) -> None:
    """Check that an operator was called in time, in words that name LIST, and that a callback is heard at once."""
    assert trouble.began_at is not None
    assert (state.phase, state.attention) == ("stored", None)
    timeline = detail_of(state).timeline
    raised = [event for event in timeline if event.event == "attention_raised"]
    assert [event.detail.partition(":")[0] for event in raised if event.detail] == ["unknown_create"]
    assert raised[0].at - trouble.began_at <= HOUR + SLACK
    assert "LIST has failed since" in (raised[0].detail or "")
    assert "502" in (raised[0].detail or "")
    (found,) = [event for event in timeline if event.event == "task_found"]
    if called_back:
        assert found.source == "callback"
        (received,) = [event for event in timeline if event.event == "callback_received"]
        assert found.at - received.at < timedelta(minutes=1)
    else:
        assert found.source == "list"
        assert found.at - trouble.ended_at < timedelta(minutes=15)
    assert (found.at < trouble.ended_at) == called_back


def _signals(run: Iterable[HistoryEvent]) -> int:
    return sum(event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED for event in run)


def _size(run: Iterable[HistoryEvent]) -> int:
    return sum(event.ByteSize() for event in run)


def _most(runs: Sequence[list[HistoryEvent]]) -> str:
    return f"{max(map(len, runs))}, {max(map(_size, runs))}"


def _memory() -> float:
    """Return the most memory that this process has used, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
