"""LIST is down for a day, while hundreds of jobs search for the task of a lost answer."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from datetime import timedelta

import pytest
from temporalio import activity

from seedance_temporal import contract
from seedance_temporal.contract import TaskChanged
from seedance_temporal.job import JobState
from tests.faults.outages import HOUR, MOST_BYTES, MOST_EVENTS, SLACK
from tests.faults.report import AddRow
from tests.faults.simulated import SimulatedTask, Trouble
from tests.model.outages import Day
from tests.model.run import simulated
from tests.model.server import Run
from tests.support.jobs import a_request, detail_of

# Of so many jobs one gets a callback, so long after LIST began to fail.
CALLED_BACK = 10
CALLS_AFTER = timedelta(hours=3)
# A LIST is repeated once a minute, and begins anew every ten.
MOST_LISTS_AN_HOUR = 100
_BYTES_OF_A_JOB = 1_000


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("temporalio.activity", "activities", "httpx"):
        caplog.set_level(logging.CRITICAL, name)


class _Sample:
    """Every tenth job, whose callback comes in the middle of the outage."""

    def __init__(self, day: Day, trouble: Trouble) -> None:
        self._day = day
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
        if began is None or self._sent or self._day.now < began + CALLS_AFTER:
            return
        self._sent = True
        for job_id, task_id in self.tasks.items():
            named = TaskChanged(task_id=task_id, status="succeeded", attempt=1)
            await self._day.client.get_workflow_handle(job_id).signal(contract.SIGNAL_TASK_CHANGED, named)


@pytest.mark.parametrize(
    ("jobs", "hours"), [(5, 23), pytest.param(500, 23, marks=[pytest.mark.faults, pytest.mark.timeout(3600)])]
)
def test_day_without_list_is_outlasted(jobs: int, hours: int, report: AddRow) -> None:
    """It lasts 23 hours, because the URLs of the results live for 24."""
    random.seed(0)
    trouble = Trouble("provider", "502 html", only="LIST", lasts=timedelta(hours=hours))
    began = time.monotonic()
    with simulated() as loop:
        day = Day(loop, trouble, answering="unknown, exists", always=True)
        sample = _Sample(day, trouble)
        day.provider.after_post = sample.note
        job_ids = [day.start(a_request()) for _ in range(jobs)]
        for _ in day.looks():
            day.do(sample.call_back())
        for job_id in job_ids:
            assert day.error(job_id) is None
            _check(day.state(job_id), trouble, called_back=job_id in sample.tasks)
    assert len(day.provider.posts) == len(day.provider.tasks) == jobs, "one POST for each"
    assert len(sample.tasks) == jobs // CALLED_BACK
    chains = [day.runs(job_id) for job_id in job_ids]
    runs = [run for chain in chains for run in chain]
    lister = [run for run in day.server.runs if run.hosted.kind == contract.LISTER]
    for run in [*runs, *lister]:
        assert run.events < MOST_EVENTS
        # One step of the lister has a request and an answer for each job.
        assert run.hosted.bytes < MOST_BYTES + (_BYTES_OF_A_JOB * jobs if run in lister else 0)
    assert len(trouble.failed) < MOST_LISTS_AN_HOUR * hours
    report(
        "A day without LIST",
        {
            "jobs": jobs,
            "failed LISTs": len(trouble.failed),
            "all LISTs": day.life.requests["provider"].count("LIST: list_page"),
            "signals to the lister": sum(map(_signals, lister)),
            "lister: runs, most events and bytes": f"{len(lister)}, {_most(lister)}",
            "job: most runs, events and bytes": f"{max(map(len, chains))}, {_most(runs)}",
            "signals to a job, at most": max(map(_signals, runs)),
            "seconds": f"{time.monotonic() - began:.0f}",
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


def _signals(run: Run) -> int:
    return sum(job.HasField("signal_workflow") for activation, _ in run.hosted.history for job in activation.jobs)


def _most(runs: Sequence[Run]) -> str:
    return f"{max(run.events for run in runs)}, {max(run.hosted.bytes for run in runs)}"
