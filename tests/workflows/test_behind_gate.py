"""A job whose create was refused for all: it reports that, waits in the held queue, and probes where it is asked to."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.exceptions import ApplicationError

from activities.create import CreateResult
from activities.places import CheckResult, TasksResult
from seedance_temporal.contract import SIGNAL_RETRY, Queues
from seedance_temporal.gate import set_rate
from seedance_temporal.gate_contract import SIGNAL_PROBE
from tests.support.jobs import detail_of
from tests.support.polling import until
from tests.workflows.conftest import SUGGESTED_FROM
from tests.workflows.fakes import (
    OTHER,
    RESULT,
    Answer,
    Held,
    claim,
    create_result,
    created,
    ended,
    failure,
    not_sent,
    now,
    refused,
)
from tests.workflows.harness import Harness, Job, noted

CONTINUED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW


def refused_for_all(seconds: float = 3600, **given: Any) -> Answer:
    return not_sent(seconds, "AccountOverdueError", attention="account", for_all=True, **given)


def and_held(harness: Harness, answer: Any) -> Answer:
    """Answer a create, and hold its queue, as the gate does."""

    async def answered(input: Any) -> CreateResult:
        await set_rate(harness.client, Queues(harness.route).create, 0)
        result: CreateResult = await answer(input)
        return result

    return answered


async def start_behind_gate(harness: Harness, *creates: Answer) -> Job:
    """Start a job whose first create is refused for all, and return when the next one waits in the held queue.

    Args:
        creates: The answers of the further creates.
    """
    harness.fake.plan("report_create", True)
    harness.fake.always("report_create", False)
    harness.fake.plan("read_ledger", claim(1), claim(2))
    harness.fake.plan("create_task", and_held(harness, refused_for_all()), *creates)
    job = await harness.start()
    await until_scheduled(job, 2)
    return job


async def until_scheduled(job: Job, times: int) -> None:
    """Wait until so many creates were scheduled, which need not have begun."""

    async def is_scheduled() -> bool:
        return len(await job.scheduled("create_task")) >= times

    await until(is_scheduled, f"{times} creates are scheduled")


async def queues_of(job: Job, harness: Harness) -> list[str]:
    scheduled = await job.scheduled("create_task")
    return [event.task_queue.name.removeprefix(f"seedance-{harness.route}-") for event in scheduled]


def answers(harness: Harness) -> list[str]:
    """Return what was reported to the gate."""
    return [call.input.report.answer for call in harness.fake.of("report_create")]


async def test_job_waits_in_held_queue(harness: Harness) -> None:
    reset = now()
    harness.fake.plan("report_create", True)
    harness.fake.plan("read_ledger", claim(1), claim(2))
    harness.fake.plan("create_task", and_held(harness, refused_for_all(reset_at=reset)))
    job = await harness.start()
    await until_scheduled(job, 2)
    shown = await job.until_state(phase="waiting", attention="account")
    assert detail_of(shown).continues_at is None, "it waits for the gate, not for a time"
    input = harness.fake.input("report_create")
    report = input.report
    assert (input.queue, report.job_id) == (Queues(harness.route).create, job.id)
    assert (report.answer, report.why, report.attention) == ("closed", "AccountOverdueError: busy", "account")
    assert report.reset_at == reset
    assert len(harness.fake.of("create_task")) == 1


async def test_asked_job_probes_through_queue_of_its_own(harness: Harness) -> None:
    job = await start_behind_gate(harness, created(seconds=0))
    harness.fake.plan("read_ledger", claim(2))
    harness.fake.finish()
    await job.signal(SIGNAL_PROBE)
    assert await job.result() == RESULT
    assert await queues_of(job, harness) == ["create", "create", "create-probe"]
    assert answers(harness) == ["closed", "opened"]
    inputs = [call.input for call in harness.fake.of("create_task")]
    assert [(input.attempt, input.refusals) for input in inputs] == [(1, 0), (2, 1)], "no claim for the one withdrawn"


async def test_operators_retry_probes(harness: Harness) -> None:
    job = await start_behind_gate(harness, created(seconds=0))
    harness.fake.plan("read_ledger", claim(2))
    harness.fake.finish()
    await job.signal(SIGNAL_RETRY)
    assert await job.result() == RESULT
    assert await queues_of(job, harness) == ["create", "create", "create-probe"]


async def test_refused_probe_waits_in_held_queue_again(harness: Harness) -> None:
    job = await start_behind_gate(harness, refused_for_all(), created(seconds=0))
    harness.fake.plan("report_create", True)
    harness.fake.plan("read_ledger", claim(2), claim(3))
    await job.signal(SIGNAL_PROBE)
    await until_scheduled(job, 4)
    assert await queues_of(job, harness) == ["create", "create", "create-probe", "create"]
    shown = await job.until_state(phase="waiting")
    assert noted(shown).count("attention_raised account") == 1
    harness.fake.finish()
    await set_rate(harness.client, Queues(harness.route).create, None)
    assert await job.result() == RESULT
    assert answers(harness) == ["closed", "closed", "opened"]
    assert "attention_settled account" in await job.noted()


async def test_probe_of_another_job_lets_the_queue_go(harness: Harness) -> None:
    job = await start_behind_gate(harness, created(seconds=0))
    harness.fake.finish()
    await set_rate(harness.client, Queues(harness.route).create, None)
    assert await job.result() == RESULT
    assert await queues_of(job, harness) == ["create", "create"]


@pytest.mark.parametrize("answer", [refused(), create_result("unknown")], ids=["refused", "unknown"])
async def test_probe_that_says_nothing_is_reported(harness: Harness, answer: Answer) -> None:
    error = failure("invalid", "InvalidParameter", task_id=None)
    job = await start_behind_gate(harness, answer)
    harness.fake.plan("read_ledger", claim(2), ended(error))
    harness.fake.plan("ask_lister", ended(error))
    await job.signal(SIGNAL_PROBE)
    await job.failed()
    assert answers(harness) == ["closed", "unclear"]


async def test_probe_that_was_not_sent_waits_for_itself(harness: Harness) -> None:
    job = await start_behind_gate(harness, not_sent(3600))
    harness.fake.plan("read_ledger", claim(2))
    await job.signal(SIGNAL_PROBE)
    await job.until_waiting()
    assert answers(harness) == ["closed", "unclear"]


async def test_probe_without_place_stays_the_probe(harness: Harness) -> None:
    """A limit was set while the job waited: it takes a place, and the gate still waits for its create."""
    job = await start_behind_gate(harness, not_sent(3600, "no_place", needs_place=True), created(seconds=0))
    harness.fake.plan("read_ledger", claim(2), claim(3))
    harness.fake.always("open_tasks", TasksResult(leases=()))
    harness.fake.always("check_places", CheckResult(unneeded=()))
    harness.fake.finish()
    await job.signal(SIGNAL_PROBE)
    assert await job.result() == RESULT
    assert await queues_of(job, harness) == ["create", "create", "create-probe", "create-probe"]
    assert [call.input.placed for call in harness.fake.of("create_task")] == [False, False, True]
    assert answers(harness) == ["closed", "opened"]


@pytest.mark.parametrize("answer", [False, ApplicationError("no gate", non_retryable=True)], ids=["open", "away"])
async def test_job_waits_for_itself_without_gate(harness: Harness, answer: Answer) -> None:
    harness.fake.plan("report_create", answer)
    harness.fake.create(refused_for_all())
    job = await harness.start_until_called("report_create")
    shown = await job.until_waiting()
    assert (shown.phase, shown.attention) == ("waiting", "account")
    await job.signal(SIGNAL_PROBE)
    assert len(await job.scheduled("create_task")) == 1


async def test_held_create_is_withdrawn_by_cancel(harness: Harness) -> None:
    job = await start_behind_gate(harness)
    harness.fake.plan("read_ledger", claim(2), claim(2))
    await job.ask_to_cancel()
    assert (await job.failed()).failure_class == "cancelled"
    assert len(harness.fake.of("create_task")) == 1


async def test_late_request_to_probe_is_kept(harness: Harness) -> None:
    """The gate can ask while the job reads the ledger."""
    reading = Held(claim(2))
    harness.fake.plan("report_create", True, False)
    harness.fake.plan("read_ledger", claim(1), reading)
    harness.fake.plan("create_task", and_held(harness, refused_for_all()), created(seconds=0))
    harness.fake.finish()
    job = await harness.start_until(reading)
    await job.signal(SIGNAL_PROBE)
    reading.release()
    assert await job.result() == RESULT
    assert await queues_of(job, harness) == ["create", "create-probe"]


async def test_next_run_is_behind_the_gate_as_well(renewing: Harness) -> None:
    report = Held(True)
    renewing.fake.plan("report_create", report, False)
    renewing.fake.always("identify_task", OTHER)
    renewing.fake.plan("read_ledger", claim(1), claim(2), claim(2))
    renewing.fake.plan("create_task", and_held(renewing, refused_for_all()), created(seconds=0))
    renewing.fake.finish()
    job = await renewing.start_until(report)
    for _ in range(SUGGESTED_FROM + 5):
        await job.callback("running")
    await job.signal(SIGNAL_PROBE)
    report.release()
    assert await job.result() == RESULT
    assert (await job.events())[-1].event_type == CONTINUED
    assert answers(renewing) == ["closed", "opened"]
